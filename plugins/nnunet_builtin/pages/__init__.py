"""Pages: one HTML file with tables, plots and a volume viewer, which opens without network."""
