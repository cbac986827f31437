"""How glibc's allocator treats the memory that a process frees."""

import ctypes
import platform

SETTINGS = ((-4, 0), (-1, 2**31 - 1), (-2, 256 * 2**20))
"""Parameters of glibc's mallopt by the numbers of malloc.h, and their values: M_MMAP_MAX, in blocks; M_TRIM_THRESHOLD
and M_TOP_PAD, in bytes."""


def keep_freed_memory() -> None:
    """Has glibc's allocator keep the memory that this process frees, to use it again; elsewhere it does nothing.

    By default glibc gives large blocks back to the kernel, which maps and zeroes them again a moment later. Training
    and decoding are faster without that, and their results keep their bits.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in SETTINGS:
            libc.mallopt(parameter, value)
