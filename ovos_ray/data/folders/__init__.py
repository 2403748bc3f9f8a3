"""Dataset folders as people have them on disk, a file a layout (`LAYOUTS` in `open.py`), and synthetic videos."""
