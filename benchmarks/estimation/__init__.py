"""How ``python -m benchmarks estimate`` gets from a model file to milliseconds on a board."""
