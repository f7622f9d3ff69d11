"""What an adapter holds: singular values, effective ranks, plots."""
