"""The web page: see ``emotion-edge web``."""
