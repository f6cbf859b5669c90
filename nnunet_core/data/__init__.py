"""What flows: datasets, images and their geometry, labels, fingerprint, plans, cases, splits."""
