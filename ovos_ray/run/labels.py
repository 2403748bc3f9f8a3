"""The label budget of a run: every label that had a part in its result, training, choice and pretraining apart."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from ovos_ray.config import ExperimentConfig, ValidationConfig
from ovos_ray.data.folders.open import DatasetFolder, open_dataset
from ovos_ray.data.shards.index import LabelBudget, ShardIndex
from ovos_ray.run.pretraining import pretraining_folder

__all__ = ["Labels", "count_labels", "labels_of_run", "validated"]


@dataclass(frozen=True)
class Labels:
    """Labelled frames behind one result.

    Attributes:
        training: Labels in the shards, and the frames of their videos.
        validation: Labels of the videos that are validated on, and all their frames; none without validation.
        pretraining: Labelled images of the pretraining, which the paper's percentages leave out.
    """

    training: LabelBudget
    validation: LabelBudget = field(default_factory=lambda: LabelBudget(0, 0))
    pretraining: int = 0

    @property
    def percent(self) -> float:
        """Labels of training and validation, in percent of all their frames."""
        labelled = self.training.labelled_frames + self.validation.labelled_frames
        return LabelBudget(labelled, self.training.total_frames + self.validation.total_frames).percent

    def as_dict(self) -> dict[str, int]:
        """Returns the numbers for `result.json`."""
        return {
            "training": self.training.labelled_frames,
            "training_frames": self.training.total_frames,
            "validation": self.validation.labelled_frames,
            "validation_frames": self.validation.total_frames,
            "pretraining": self.pretraining,
        }

    def __str__(self) -> str:
        parts = [str(self.training)]
        if self.validation.labelled_frames:
            parts.append(f"validation uses {self.validation.labelled_frames} more, together {self.percent:.1f} %")
        if self.pretraining:
            parts.append(f"pretraining uses {self.pretraining} labelled images, which the percentages leave out")
        return "; ".join(parts)


def count_labels(config: ExperimentConfig, pretraining: ExperimentConfig | None = None) -> Labels:
    """Counts the labels of a run, and of the pretraining that it starts from.

    Raises:
        DataError: Shards or the validation split cannot be read.
    """
    training = [ShardIndex.shared(folder).budget for folder in config.data.shards]
    images = 0
    if pretraining is not None:
        images = sum(ShardIndex.shared(folder).budget.labelled_frames for folder in pretraining.data.shards)
    folder, names = validated(config.validation)
    videos = [] if folder is None else [folder.outline(config.validation.split, name) for name in names]
    return Labels(
        LabelBudget(sum(b.labelled_frames for b in training), sum(b.total_frames for b in training)),
        LabelBudget(sum(len(list(labels)) for _, labels in videos), sum(number for number, _ in videos)),
        images,
    )


def labels_of_run(config: ExperimentConfig) -> Labels:
    """Counts the labels of a run whose pretraining, if any, is finished."""
    labels = count_labels(config)
    if config.pretrain is None:
        return labels
    before = (pretraining_folder(config).result() or {}).get("labels", {})
    return dataclasses.replace(labels, pretraining=before.get("training", 0) + before.get("pretraining", 0))


def validated(config: ValidationConfig) -> tuple[DatasetFolder | None, tuple[str, ...]]:
    """Returns the dataset that is validated on and the names of its videos; none where validation is switched off.

    Raises:
        DataError: It cannot be opened, or has no such split.
    """
    if config.source is None:
        return None, ()
    folder = open_dataset(config.source, layout=config.layout)
    return folder, folder.video_names(config.split)[: config.num_videos]
