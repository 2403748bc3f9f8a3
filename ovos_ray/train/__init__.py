"""Training: one optimiser step, its checkpoints, and the loop that Ray Train runs."""
