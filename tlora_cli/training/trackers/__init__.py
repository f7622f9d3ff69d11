"""Trackers of a training: TensorBoard, wandb and trackio, one a file behind one interface."""
