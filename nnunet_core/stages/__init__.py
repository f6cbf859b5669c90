"""The main path, one file a stage: run, method, plan, prepare, experiment, folds, cascade, predict, select, evaluate."""
