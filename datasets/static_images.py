"""Segmented photographs, from which clips are synthesised for pretraining (stage 0)."""

from ovos_ray.data.folders.description import DatasetDescription

DATASET = DatasetDescription(
    name="static_images",
    layout="static",
    title="FSS-1000, DUTS, ECSSD, BIG, HRSOD",
    source="FSS-1000, DUTS-TR, DUTS-TE, ECSSD, BIG and HRSOD from their authors; STCN describes the collection",
    licence="each set has its own terms, most for research only",
    splits={
        "train": "all images",
        "fss": "FSS-1000, a folder per class",
        "DUTS-TR": "saliency",
        "DUTS-TE": "saliency",
        "ecssd": "saliency",
        "BIG_small": "scaled-down BIG; visited five times as often",
        "HRSOD_small": "scaled-down HRSOD; visited five times as often",
    },
    frame_interval=1,
    label_budget="every image is labelled: not part of the video budget, state its use beside every result",
    notes="X.jpg with X.png beside it. Masks are grey; values above one half are the object. Pack the folders "
    "separately to visit them differently often.",
)
