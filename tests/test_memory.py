"""Freed memory is kept for the next recording."""

import subprocess
import sys

import pytest

PAGES = """
import resource, sys
import numpy as np
from harken.core.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
for _ in range(20):
    arrays = [np.ones(1 << 20) for _ in range(4)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PAGES, how], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("the C library has no mallopt")
    return int(done.stdout)


def test_memory_of_a_recording_is_not_fetched_anew_for_the_next():
    assert faults("kept") < faults("returned") / 2
