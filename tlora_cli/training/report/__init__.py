"""The report of a run: one HTML page, made of what the run folder holds."""
