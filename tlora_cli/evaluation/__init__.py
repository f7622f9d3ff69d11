"""How good an adapter is: prompt suites, feature extractors, metrics, and their tables."""
