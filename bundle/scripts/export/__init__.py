"""The network in other programs' formats."""
