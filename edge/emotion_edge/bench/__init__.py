"""Measures how fast a model file runs on this machine."""
