"""One-shot training of video object segmentation networks, orchestrated on Ray."""
