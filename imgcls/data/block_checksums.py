"""Checksums of a large file by blocks, of which a reader may look at some instead of all."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

BLOCK_BYTES = 2**24
"""Bytes that one checksum is of."""

CHECKED_BLOCKS = 16
"""Number of blocks of a file that `matches` checks, spread over it: all blocks up to 256 MiB."""


def block_checksums(path: Path) -> list[int]:
    """The file's size in bytes, then the CRC-32 checksum of each of its blocks."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        return [num_bytes, *(zlib.crc32(file.read(BLOCK_BYTES)) for _ in range(0, num_bytes, BLOCK_BYTES))]


def matches(path: Path, checksums: Sequence[int]) -> bool:
    """Whether a file has the size and the checksums of `block_checksums`, of which it looks at `CHECKED_BLOCKS`."""
    num_bytes, *of_blocks = checksums
    if path.stat().st_size != num_bytes:
        return False
    spread = np.linspace(0, len(of_blocks) - 1, min(CHECKED_BLOCKS, len(of_blocks))).astype(int).tolist()
    with path.open("rb") as file:
        for block in spread:
            file.seek(block * BLOCK_BYTES)
            if zlib.crc32(file.read(BLOCK_BYTES)) != of_blocks[block]:
                return False
    return True
