"""The page that `nnunet benchmark report` writes."""
