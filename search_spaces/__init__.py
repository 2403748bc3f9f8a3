"""Studies: functions () -> SearchSpace, one per question."""
