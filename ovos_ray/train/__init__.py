"""Training: one optimiser step and what it needs, checkpoints, the folder of a run. The loop is in `run/loop.py`."""
