"""DAVIS 2017: 150 videos with several objects, every frame of train and val annotated."""

from ovos_ray.data.folders.description import DatasetDescription

DATASET = DatasetDescription(
    name="davis2017",
    layout="davis2017",
    title="DAVIS 2017, semi-supervised",
    source="https://davischallenge.org/davis2017/code.html (TrainVal 480p; Test-Dev 2017 480p)",
    licence="annotations CC BY-NC 4.0; see the licence in the download",
    splits={
        "train": "60 videos",
        "val": "30 videos, the benchmark",
        "test-dev": "30 videos, first frame annotated; scored by the benchmark's server",
    },
    frame_interval=1,
    label_budget="one label per training video: 60 of 4209 frames, 1.4 %",
    notes="Masks hold palette indices. In the paper DAVIS is visited five times as often as YouTube-VOS.",
)
