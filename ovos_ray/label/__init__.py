"""A local page on which a person draws the one mask that a video needs."""
