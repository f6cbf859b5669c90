"""Image files: NIfTI, NRRD and everything else that SimpleITK reads."""
