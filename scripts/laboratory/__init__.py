"""What the laboratory's grids say about the paper's claims: `scripts/lab.py` runs it."""
