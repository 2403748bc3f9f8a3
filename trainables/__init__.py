"""Recipes: functions () -> ExperimentConfig, one per network and stage."""
