"""Cores and memory as Linux's files tell them, of control groups of both versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgcls.machine import affine_cores, cpu_quota, free_memory, usable_cores

ROOT = Path(__file__).parent.parent

MEMINFO = "MemTotal: 8000 kB\nMemAvailable: 4000 kB\n"

V2 = "0::/user/job\n"
V1 = "5:cpuacct,cpu:/job\n4:memory:/job\n1:name=systemd:/job\n"


def written(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": V2}, None),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/job/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/user/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/user/job/cpu.max": "400000 100000\n",
            },
            0.5,
        ),
        # In a container with its own namespace, the group's limit stands at the root.
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
        # A path of the host that the container does not see.
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path, files, quota):
    root = written(tmp_path, files)
    assert cpu_quota(root) == quota
    assert usable_cores(root) == (affine_cores() if quota is None else min(affine_cores(), max(1, round(quota + 0.49))))


@pytest.mark.parametrize(
    ("files", "kilobytes"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 4000),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/user/job/memory.max": str(3000 * 1024),
                "sys/fs/cgroup/user/job/memory.current": str(2500 * 1024),
                "sys/fs/cgroup/user/job/memory.stat": f"anon 5\ninactive_file {1000 * 1024}\n",
            },
            1500,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/user/job/memory.max": "max",
                "sys/fs/cgroup/user/job/memory.current": "5",
            },
            4000,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(3000 * 1024),
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(4000 * 1024),
            },
            0,
        ),
    ],
)
def test_memory_is_free_up_to_the_nearest_limit(tmp_path, files, kilobytes):
    assert free_memory(written(tmp_path, files)) == (None if kilobytes is None else 1024 * kilobytes)


def test_cores_are_those_of_the_affinity():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert affine_cores() == len(allowed)


def test_the_memory_of_a_process_grows_with_what_it_holds():
    """In a new process: one that ran other tests holds freed memory, which it uses again."""
    program = """
from imgcls.machine import own_memory
before = own_memory()
held = bytearray(b"x" * 2**26)
print((own_memory() - before) / len(held))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) >= 0.9
