"""The commands of ``python -m convert``, one module each."""
