"""Latency, accuracy, memory, peers: what an engineer chooses a model and a board by."""
