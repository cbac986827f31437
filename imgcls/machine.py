"""The cores and the memory that this process may use, and how busy its machine is; limits of containers count."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")
"""Where Linux shows its files; tests have a folder in its place."""


def usable_cores(root: Path = ROOT) -> int:
    """The number of cores that this process may use: those of its affinity, or fewer where a container has a quota."""
    quota = cpu_quota(root)
    return affine_cores() if quota is None else max(1, min(affine_cores(), math.ceil(quota)))


def affine_cores() -> int:
    """The number of cores on which the system lets this process run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores' worth of time that control groups grant this process, such as 1.5; None where they set no limit.

    It is read once: whoever decodes asks for every piece of work.
    """
    quotas = [quota for folder in _control_groups("cpu", root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def free_memory(root: Path = ROOT) -> int | None:
    """Bytes that processes can still take before the machine, or a control group's limit, is full; None if unknown."""
    free = [left for folder in _control_groups("memory", root) if (left := _left(folder)) is not None]
    if (available := _line(root / "proc/meminfo", "MemAvailable:")) is not None:
        free.append(1024 * available)
    return min(free, default=None)


def own_memory(root: Path = ROOT) -> int | None:
    """Bytes in memory that belong to this process alone, without files that it maps; None where the system has none."""
    kilobytes = _line(root / "proc/self/status", "RssAnon:")
    return None if kilobytes is None else 1024 * kilobytes


def load() -> float | None:
    """Mean number of processes that ran or wanted to run in the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def seen_by_auto() -> dict[str, object]:
    """What `train.threads` and `search.workers` = `auto` see of this machine before they measure, for programs."""
    return {
        "num_usable_cores": usable_cores(),
        "num_affine_cores": affine_cores(),
        "cpu_quota": cpu_quota(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "free_memory_bytes": free_memory(),
        "load": load(),
    }


def seen_by_auto_text(seen: Mapping[str, object]) -> str:
    """The same for people, in one line."""
    cores, memory, average = seen["num_usable_cores"], seen["free_memory_bytes"], seen["load"]
    parts = [f"{cores} of {seen['num_affine_cores']} cores"]
    if seen["cpu_quota"] is not None:
        parts.append(f"a control group grants {seen['cpu_quota']:g} of them")
    if asked := seen["omp_num_threads"]:
        parts.append(f"OMP_NUM_THREADS = {asked}, so all trials together get no more threads")
    if isinstance(memory, int):
        parts.append(f"{memory / 1e9:.1f} GB of memory are free")
    if average is not None:
        parts.append(f"load {average:.1f} in the last minute")
    return f'train.threads and search.workers = "auto" see {"; ".join(parts)}'


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, the innermost first: a limit of any of them holds."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")  # version 2 names no controllers
        own = mount / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(mount) and folder.is_dir())


def _quota(folder: Path) -> float | None:
    """Of a control group of version 2 (`cpu.max`: "150000 100000") or 1; None where it sets no limit."""
    files = _text(folder / "cpu.max") or f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
    with suppress(ValueError):  # "max", or no such file
        quota, period = map(int, files.split())
        return quota / period if quota > 0 and period > 0 else None
    return None


def _left(folder: Path) -> int | None:
    """Bytes up to the limit of a control group; pages of files that it can drop count as free."""
    for limit, used, dropped in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(ValueError):
            most, now = int(_text(folder / limit)), int(_text(folder / used))
            return max(0, most - now + (_line(folder / "memory.stat", dropped) or 0))
    return None


def _line(path: Path, name: str) -> int | None:
    """The number behind a name in a file of such lines."""
    lines = (line.split() for line in _text(path).splitlines())
    return next((int(words[1]) for words in lines if len(words) > 1 and words[0] == name), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
