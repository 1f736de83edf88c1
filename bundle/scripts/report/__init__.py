"""Pictures and reports of plain arrays; nothing here imports torch."""
