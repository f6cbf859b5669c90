"""The plugin `reports`: a run, a model or a dataset as one page."""
