"""Tiny pipelines with random weights, a file for each family; see `make_tiny_models.py`."""
