"""Augmentation of what is trained on, one transform a file."""
