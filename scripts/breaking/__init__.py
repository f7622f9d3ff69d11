"""Ways to break the program: mutated files of all kinds, and runs killed at any moment."""
