"""Fine-tuning for nnunet-core: from supervised or self-supervised weights, with a warm-up."""
