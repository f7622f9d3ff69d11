"""The benchmark of `scripts/bench.py`; `docs/performance.md` has the results."""
