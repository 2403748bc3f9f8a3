"""Scoring: numbers out of predicted and annotated masks."""
