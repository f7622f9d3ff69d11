"""Tools for adapters and recipes, beside training and sampling."""
