"""The V2 trainer: loop, sampling, loading, optimisation, checkpoints, fine-tuning."""
