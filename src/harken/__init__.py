"""Harken listens to machines."""

__version__ = "0.1.0"
