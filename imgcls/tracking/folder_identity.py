"""The identity of a folder on a machine, by which a folder is told from its copies."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"), Path("/proc/sys/kernel/random/boot_id"))
"""Files that name a machine, or at least its running kernel (a container often has no other); the first counts."""


@dataclass(frozen=True)
class FolderIdentity:
    """The identity of a folder: what no copy of it shares.

    Attributes:
        path: real, absolute.
        device: number of its file system.
        inode: its number in that file system.
        machine: id of the machine that sees it.
    """

    path: str
    device: int
    inode: int
    machine: str

    @classmethod
    def of(cls, folder: Path) -> FolderIdentity:
        """The identity of a folder that exists."""
        there = folder.stat()
        return cls(str(folder.resolve()), there.st_dev, there.st_ino, machine())

    def is_copied_from(self, other: FolderIdentity) -> bool:
        """Whether this folder is a copy of another one, which still exists or may exist on another machine.

        A folder that was moved, or is seen by another path, is not a copy.
        """
        if self.machine != other.machine:
            return self.inode != other.inode
        if self.path == other.path or (self.device, self.inode) == (other.device, other.inode):
            return False
        try:
            there = os.stat(other.path)  # noqa: PTH116 - the text may stand for nothing
        except (OSError, ValueError):
            return False
        return (there.st_dev, there.st_ino) == (other.device, other.inode)

    def digest(self, salt: str = "") -> str:
        """32 hexadecimal digits that stand for it."""
        facts = (salt, self.path, str(self.device), str(self.inode), self.machine)
        return hashlib.sha256("\0".join(facts).encode(errors="surrogateescape")).hexdigest()[:32]


@cache
def machine() -> str:
    """The part of a folder's identity that says which machine; its processes see the same locks of a file."""
    for path in MACHINE_ID:
        try:
            name = path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            continue
        if name and name != "uninitialized":  # as in an image from which machines are made
            return name
    return socket.gethostname()
