"""Converts a float Keras classifier to a checked ``.tflite`` (``python -m convert``)."""
