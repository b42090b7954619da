"""Data, networks, training and evaluation, on the workstation (``python -m train``)."""
