"""`tlora sheet`: one labelled picture of two axes, to choose a checkpoint and a strength by."""
