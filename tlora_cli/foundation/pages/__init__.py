"""HTML pages: they share one base and one style, are one file each, and load nothing."""
