"""A study: many runs, from a search space to a summary."""
