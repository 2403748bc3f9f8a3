"""What a study shows: plots, overlays, films."""
