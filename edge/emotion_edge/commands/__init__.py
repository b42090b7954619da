"""The commands of ``emotion-edge``, one module each."""
