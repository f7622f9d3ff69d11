"""What `scripts/bench.py` measures and how; `docs/performance.md` has the results."""
