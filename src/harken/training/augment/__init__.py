"""Augmentations for training, one transform per file."""
