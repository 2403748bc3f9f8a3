"""Inference: masks of whole videos out of a network and the first mask."""
