"""The recipe: its models, its defaults, what is wrong with one, and its files. Imports no torch."""
