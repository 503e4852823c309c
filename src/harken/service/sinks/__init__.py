"""Whom the monitor tells: one file per kind of receiver, behind the contract of `base`."""
