"""Ray: the only room that imports it. A cluster to run on, batches by Ray Data, runs by Ray Train, studies by Tune."""
