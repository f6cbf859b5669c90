"""Steps of augmentation, a file for each, and the augmentations that are made of them."""
