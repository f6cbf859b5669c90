"""Files that come from strangers: read and unpacked with every doubt, and nothing of them run."""
