"""Tracking: a sink that never waits, and the spool behind it. The only room that imports MLflow."""
