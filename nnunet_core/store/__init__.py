"""What lies on disk: raw datasets, prepared cases, models, the workspace."""
