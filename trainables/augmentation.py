"""Augmentation presets: what each published network is trained with, on videos and (`STATIC`) on photographs."""

from __future__ import annotations

import dataclasses

from ovos_ray.config import AugmentationConfig
from ovos_ray.config.data_settings import static_augmentation

STCN = AugmentationConfig(interpolation="bicubic", frame_rotation=15.0, frame_shear=10.0)
"""Bicubic, and every frame rotated and sheared on its own."""

XMEM = dataclasses.replace(STCN, interpolation="bilinear", frame_geometry_until=100_000 / 110_000)
"""As STCN's, but bilinear; the last 10,000 of 110,000 steps without rotation and shear of each frame."""

CUTIE = AugmentationConfig(clip_rotation=25.0, clip_shear=20.0, frame_jitter=(0.1, 0.05, 0.05, 0.0))
"""The clip is rotated and sheared as a whole before it is cropped.

Colour jitter is meant per frame; the published code happens to repeat one draw over the whole clip.
"""

STATIC = static_augmentation()
"""STCN's and XMem's for clips synthesised from photographs."""

CUTIE_STATIC = dataclasses.replace(STATIC, interpolation="bilinear", clip_scale=(0.5, 2.0), frame_scale=(0.5, 2.0))
"""The same for Cutie, which interpolates bilinearly and zooms further, the clip and every frame."""
