"""A simulated plant: machines with physical fault models, in the layout of DCASE 2025 Task 2.

`simulate` writes it. One file per machine type (`fan`, `gearbox`, `bearing`, `slider`, `valve`, `pump`), room
acoustics and factory noise (`room`, `noise`), signal building blocks (`signals`).
"""

from harken.plant.simulate import list_machines, simulate

__all__ = ["list_machines", "simulate"]
