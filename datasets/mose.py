"""MOSE: complex scenes, in which objects disappear, come back and hide one another."""

from ovos_ray.data.folders.description import DatasetDescription

DATASET = DatasetDescription(
    name="mose",
    layout="youtube-vos",
    title="MOSE: complex video object segmentation",
    source="https://henghuiding.github.io/MOSE/ (MOSEv2: https://mose.video)",
    licence="for research; see the download page",
    splits={
        "train": "every frame annotated",
        "valid": "first frame annotated; scored by the benchmark's server",
    },
    frame_interval=1,
    label_budget="one label per training video",
    notes="Laid out as YouTube-VOS is, but every frame is annotated, and none of YouTube-VOS's videos is left out.",
)
