"""The dataset that the project makes itself, in the layout of DAVIS 2017; `ovos-ray demo` and the tests use it."""

from ovos_ray.data.folders.description import DatasetDescription

DATASET = DatasetDescription(
    name="synthetic",
    layout="davis2017",
    title="Moving, deforming and occluding textured objects",
    source="ovos_ray.data.folders.synthetic.generate",
    licence="Apache-2.0, as the project",
    splits={
        "train": "training videos",
        "select": "held-out videos for choosing settings and checkpoints",
        "val": "held-out videos that are reported",
    },
    frame_interval=1,
    label_budget="one label per training video",
    notes="The same seed gives the same bytes. Objects and backgrounds of the splits differ.",
)
