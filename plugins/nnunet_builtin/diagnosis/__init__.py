"""What is installed, what computes, where files go, what is wrong: `nnunet doctor`."""
