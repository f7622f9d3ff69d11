"""The quality of an adapter: prompt suites, feature extractors, metrics, and their tables."""
