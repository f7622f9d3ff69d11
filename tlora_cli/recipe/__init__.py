"""The recipe: models, defaults, mistakes, files. Imports no torch."""
