"""Sweeps: one trial fits one `TorchTrainer`; Ray Tune runs many."""
