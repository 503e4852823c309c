"""Location of the real recordings and features used by benchmarks."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def shared_folder() -> Path:
    """$HARKEN_SHARED, or the folder `shared` beside the project; ends the program where there is none."""
    folder = Path(os.environ.get("HARKEN_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        sys.exit(f"no real data at {folder}: set HARKEN_SHARED")
    return folder
