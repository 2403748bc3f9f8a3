"""Tracking: the only room that knows MLflow, and the reports made from it."""
