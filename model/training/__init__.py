"""Training: the step, its data, optimizers and checkpoints, and several processes at it."""
