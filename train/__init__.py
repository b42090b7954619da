"""Workstation side: data, networks, training and evaluation (``python -m train``)."""
