"""Sweeps on Ray, which listens on every interface: they are tested in a network of their own, which only has `lo`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = Path(__file__).with_name("on_a_ray_cluster.py")
# Processes of their own too: the kernel ends all of Ray with the first of them.
APART = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")

REFUSED = ("Operation not permitted", "No space left on device", "Invalid argument")
"""The kernel's reasons: nobody but root may, there may be no more, or it was built without."""


@pytest.mark.distributed
def test_sweeps_on_a_ray_cluster():
    tried = subprocess.run([*APART, "true"], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    if tried.returncode and tried.stderr.strip().endswith(REFUSED):  # whatever else is wrong fails below
        pytest.skip(f"Ray may only listen on a network of its own, and the kernel gives none: {tried.stderr.strip()}")
    tests = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", str(INSIDE)]
    command = [*APART, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *tests]
    root = INSIDE.parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stdout + done.stderr
