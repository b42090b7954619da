"""Measures latency, accuracy and memory, for choosing a model and a board."""
