"""A simulated plant: machines with physically meant faults, in the layout of DCASE 2025 Task 2.

`simulate` writes it. One file a machine family (`fan`, `gearbox`, `bearing`, `slider`, `valve`, `pump`), the
place they stand in (`room`, `noise`), the pieces their sound is made of (`signals`).
"""

from harken.plant.simulate import list_machines, simulate

__all__ = ["list_machines", "simulate"]
