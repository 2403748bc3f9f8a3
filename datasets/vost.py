"""VOST: objects that are cut, broken, poured and molten."""

from ovos_ray.data.folders.description import DatasetDescription

DATASET = DatasetDescription(
    name="vost",
    layout="vost",
    title="VOST: video object segmentation under transformations",
    source="https://www.vostdataset.org",
    licence="for research; see the download page",
    splits={"train": "annotated", "val": "annotated, the benchmark", "test": "first frame annotated"},
    frame_interval=6,
    label_budget="one label per training video",
    notes="Frames are stored at 5 per second; D is divided by six. 255 is void: background in training.",
)
