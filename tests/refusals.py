"""A process to which the kernel refuses some calls, as a file system without links or locks would."""

import ctypes
import errno
import os
import platform
import struct
import sys

IS_POSSIBLE = sys.platform == "linux" and platform.machine() == "x86_64"
"""The numbers below are those of Linux on x86-64."""

LINK, LINKAT, FCNTL = 86, 265, 72
LOCKING = (6, 7, 37, 38)
"""F_SETLK, F_SETLKW and those of open file descriptions."""

LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000


def without_links(number=errno.EPERM):
    """The program of a filter for which no file gets a second name; EPERM is what FAT answers."""
    return [*_refuse(LINK, number), *_refuse(LINKAT, number)]


def without_locks(number=errno.ENOLCK):
    """That of a filter for which no file can be locked."""
    code = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1 + 2 * len(LOCKING), FCNTL), (LOAD, 0, 0, 24)]
    for command in LOCKING:
        code += [(JUMP_IF_EQUAL, 0, 1, command), (RETURN, 0, 0, REFUSE | number)]
    return code


def install(*programs):
    """Has the kernel refuse these calls to this process and its children from now on (seccomp, without a way back)."""
    code = [instruction for program in programs for instruction in program] + [(RETURN, 0, 0, ALLOW)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(packed)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, argument in ((38, 1), (22, 2)):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        if libc.prctl(option, argument, program if option == 22 else 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _refuse(call, number):
    return [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, call), (RETURN, 0, 0, REFUSE | number)]
