"""File systems that several machines share, and on which one machine's locks may not hold for another."""

import os
from collections.abc import Iterable
from pathlib import Path

NETWORKED = (
    "nfs", "cifs", "smb", "lustre", "gpfs", "ceph", "beegfs", "glusterfs", "pvfs", "afs", "ocfs2", "gfs2", "panfs",
    "fuse.sshfs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse",
)  # fmt: skip
"""Beginnings of the kernel's names for file systems that machines share over a network."""


def network_file_system(path: Path) -> str:
    """The kernel's name for the networked file system that holds a file or folder, such as `nfs4`; "" for a local one.

    The path need not exist yet. Where the kernel does not tell, as on macOS, every file system counts as local.
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    kind = file_system_of(Path(os.path.realpath(path)), lines)
    return kind if kind.startswith(NETWORKED) else ""


def file_system_of(path: Path, mountinfo: Iterable[str]) -> str:
    """The kernel's name for the file system that holds a path.

    Args:
        path: absolute, without symbolic links.
        mountinfo: the lines of `/proc/self/mountinfo`; of two mounts on one folder, the later one is seen.
    """
    found, depth = "", 0
    for line in mountinfo:
        of_mount, _, of_system = line.partition(" - ")
        mounted_at = Path(_unescaped(of_mount.split()[4]))
        if path.is_relative_to(mounted_at) and len(mounted_at.parts) >= depth:
            found, depth = of_system.split()[0], len(mounted_at.parts)
    return found


def _unescaped(text: str) -> str:
    r"""A path as it is, in which the kernel writes a space as \040."""
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text
