"""Data: folders of video become shards, shards become a plan of clips, a plan becomes batches."""
