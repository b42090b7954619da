"""The network: its file, manifest, preprocessing and runtime."""
