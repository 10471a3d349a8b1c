"""Peak memory, and what the machine says of itself."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from importlib.metadata import version

from mobilemoe.profile.machine import this_machine, versions
from mobilemoe.profile.memory import peak_rss_mib

GROW = """
from mobilemoe.profile.memory import peak_rss_mib
before = peak_rss_mib()
block = bytearray(b"x") * 100_000_000
during = peak_rss_mib()
del block
print(before, during, peak_rss_mib())
"""


def test_peak_is_that_of_this_process():
    assert 5 < peak_rss_mib() < 1e6


def test_peak_grows_by_what_is_touched_and_never_shrinks():
    command = [sys.executable, "-c", GROW]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, during, after = map(float, output.split())
    touched = 100_000_000 / 2**20
    assert during - before > 0.95 * touched
    assert during - before < 1.5 * touched
    assert after > during - 1  # the kernel counts pages per thread and sums up loosely


def test_machine_says_what_the_system_says():
    machine = this_machine()
    assert machine.cpu
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert math.isnan(machine.memory_gb) or machine.memory_gb > 0.1
    assert machine.os == f"{platform.system()} {platform.release()}"


def test_versions_are_the_installed_ones():
    found = versions(("numpy", "no-such-package-anywhere"))
    assert found == {
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "no-such-package-anywhere": "not installed",
    }
