"""Shards: a dataset as Parquet files with one row per frame, sorted by video, and a JSON index beside them.

    out/index.json            `ShardIndex`: videos, frame names, label frames, boxes, budget, digest, row positions
    out/videos-….parquet      the videos of a large index, as columns; the JSON then holds the rest
    out/frames-00000.parquet  dataset, video, frame, name, jpeg, label (PNG or null), height, width, checksum

A video lies in one file. Its footer says how large each JPEG and label is (`places.py`), so that a clip reads only its
own bytes; files of earlier versions are read by row groups, which hold a few frames each. JPEGs are stored as they are
unless they are scaled; labels are stored as palette PNGs of object ids. With `labels="first"` a folder holds one label
per video and no other annotation bytes.
"""
