"""A temperature for the probabilities of a trained model."""
