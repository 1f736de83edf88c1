"""Pictures and reports made from plain arrays; no torch here."""
