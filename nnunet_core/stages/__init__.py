"""The main path, one file a stage: run, method, plan, prepare, experiment, folds, cascade, case,
predict, select, evaluate.
"""
