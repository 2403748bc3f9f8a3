"""Training methods: one-shot training and its fully supervised counterpart, both made of `propagate`."""
