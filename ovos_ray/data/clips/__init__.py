"""Clips: which are trained when (the plan), how they are decoded and augmented, and batches of them."""
