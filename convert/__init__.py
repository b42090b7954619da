"""From a float Keras classifier to a ``.tflite`` that has proven itself (``python -m convert``)."""
