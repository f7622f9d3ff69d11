"""The laboratory: its grids and the paper's claims; `scripts/lab.py` runs it."""
