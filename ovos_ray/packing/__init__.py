"""Packing: a dataset folder becomes shards. Every file is checked on the way in."""
