"""DAVIS 2016: 50 videos of one object each, every frame annotated."""

from ovos_ray.data.folders.description import DatasetDescription

DATASET = DatasetDescription(
    name="davis2016",
    layout="davis2016",
    title="Densely Annotated VIdeo Segmentation 2016",
    source="https://davischallenge.org/davis2016/code.html",
    licence="annotations CC BY-NC 4.0; see the licence in the download",
    splits={"train": "30 videos", "val": "20 videos, the benchmark"},
    frame_interval=1,
    label_budget="one label per training video: 1.4 %",
    notes="Masks hold 0 and 255; 255 is the object, not void. Several objects of a scene count as one.",
)
