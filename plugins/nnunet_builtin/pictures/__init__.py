"""Pictures of cases, predictions and whole datasets."""
