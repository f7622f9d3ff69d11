"""The analysis of an adapter: singular values, effective ranks, plots."""
