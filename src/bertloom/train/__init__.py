"""The loop, the optimiser, checkpoints and recipes."""
