"""The quality of an adapter: prompt suites, encoders, metrics, tables."""
