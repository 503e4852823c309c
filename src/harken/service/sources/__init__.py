"""Where sound comes from: one source per file, behind the contract of `base`."""
