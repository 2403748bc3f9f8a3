"""One run, from a request to its result, in whatever process it is executed."""
