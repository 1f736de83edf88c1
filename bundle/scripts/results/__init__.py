"""What a reconstruction leaves behind: files, the record of how it was made, and the account of a batch."""
