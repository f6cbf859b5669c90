"""Each command of `nnunet`: it calls the core and prints."""
