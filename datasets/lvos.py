"""LVOS: long videos, a minute and more each."""

from ovos_ray.data.folders.description import DatasetDescription

DATASET = DatasetDescription(
    name="lvos",
    layout="youtube-vos",
    title="LVOS: long-term video object segmentation",
    source="https://lingyihongfd.github.io/lvos.github.io/",
    licence="for research; see the download page",
    splits={
        "train": "120 videos in version 1, annotated",
        "valid": "50 videos in version 1, annotated; objects may appear later",
        "test": "first appearances annotated; scored by the benchmark's server",
    },
    frame_interval=5,
    label_budget="one label per training video",
    notes="Frames are stored at 6 per second, about every fifth; D is divided by that. A folder named otherwise than "
    "train, valid or test is not found: rename it.",
)
