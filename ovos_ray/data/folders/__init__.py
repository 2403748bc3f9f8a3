"""Dataset folders as people have them on disk: DAVIS, YouTube-VOS, static images, plain folders, synthetic videos."""
