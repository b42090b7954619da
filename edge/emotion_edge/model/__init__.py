"""The network: its file, its manifest, what it sees and what runs it."""
