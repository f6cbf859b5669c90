"""U-Nets, their builders, their names in other nnU-Nets."""
