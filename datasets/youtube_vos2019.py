"""YouTube-VOS 2019: 3471 training videos, every fifth frame annotated."""

from ovos_ray.data.folders.description import DatasetDescription

DATASET = DatasetDescription(
    name="youtube_vos2019",
    layout="youtube-vos",
    title="YouTube-VOS 2019",
    source="https://youtube-vos.org/dataset/vos/",
    licence="annotations CC BY 4.0, videos under the YouTube terms; see the download page",
    splits={
        "train": "3464 of 3471 videos, every fifth frame",
        "valid": "507 videos; objects may appear later; scored by the benchmark's server",
        "test": "first appearances annotated; scored by the benchmark's server",
    },
    frame_interval=5,
    label_budget="one label per training video: about 27 annotated frames each, 3.7 %",
    excluded=("01e64dd36a", "04259896e2", "1336440745", "5bc77844da", "5ee23ca60e", "738e5a0a14", "f8af30d4b6"),
    notes="The excluded videos have erroneous annotations and are left out by STCN, XMem and Cutie too. 22 training "
    "videos show no object in their first frame: their label is the first frame that does. Validation reads "
    "all_frames/valid_all_frames where it is there.",
)
