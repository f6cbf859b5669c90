"""The stages of a training, one file each: method, dataset, plan, prepare, experiment, folds,
cascade, case, evaluate, select; `nnunet_core.run` goes through them.
"""
