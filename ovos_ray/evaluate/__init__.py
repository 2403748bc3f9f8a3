"""Evaluation: test-time inference, the official metrics, and benchmark submissions."""
