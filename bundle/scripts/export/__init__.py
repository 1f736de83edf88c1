"""Export of networks to other formats."""
