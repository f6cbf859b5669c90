"""Commands on raw datasets: verify, convert, list, splits."""
