"""Failures of the machine, not of this program: full disks, read-only folders, limits, too little memory.

They surface as exceptions of five libraries, some with the cause only in their text. Here they become one error that
says what ran out and what helps.
"""

import errno
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from imgcls.errors import ImgclsError, ResourceError

GOES_ON = "then the same command goes on"

FREE_SPACE = "free some space (`imgcls clean` and `imgcls cache --prune` do)"

SMALLER = "a smaller train.batch_size or train.eval_batch_size, or fewer --workers, take less"


def explain(error: BaseException) -> ResourceError | None:
    """The failure of the machine behind an exception, in words; None for all others, such as our own errors."""
    if isinstance(error, ImgclsError):
        return None
    for cause in _causes(error):
        told = _of_memory(cause) or _of_database(cause) or _of_system(cause)
        if told:
            return ResourceError(told)
    return None


OF_A_LOST_SERVER = 255
"""Python's exit code of a worker of which nobody knows how it ended: the server that forked it was killed."""


def death(exit_code: int | None, oom_kills_before: int | None) -> str:
    """The machine's failure by which a worker process died without an answer, in words, such as want of memory.

    Args:
        exit_code: as Python gives it: the negative number of the signal that killed it.
        oom_kills_before: what `oom_kills()` gave before the process was started.
    """
    if exit_code == OF_A_LOST_SERVER:
        return "its worker process was ended, as the one from which it was forked died (killed, or for want of memory)"
    text = f"its worker process died (exit code {exit_code}"
    if exit_code is None or exit_code >= 0:
        return text + ")"
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    if exit_code != -signal.SIGKILL:
        return f"{text}: {name})"
    now = oom_kills()
    if oom_kills_before is not None and now is not None and now > oom_kills_before:
        return f"{text}: {name}, as the kernel ran out of memory; {SMALLER})"
    return f"{text}: {name}, by somebody, or by the kernel for want of memory, and then {SMALLER})"


def oom_kills() -> int | None:
    """The machine's failures for want of memory: processes that the kernel killed since it started; None if unknown."""
    try:
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from.

    `orig` is SQLAlchemy's name for the database's own. torch.save fails a second time while it closes the file that
    it could not write to; another exception on whose way an error was merely handled says nothing of the cause.
    """
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        original = getattr(link, "orig", None)
        if isinstance(original, BaseException):
            link = original
        else:
            link = link.__cause__ or (link.__context__ if "inline_container" in str(link) else None)


def _of_memory(error: BaseException) -> str:
    text = str(error)
    if any(kind.__name__ in ("OutOfMemoryError", "AcceleratorError") for kind in type(error).__mro__) or (
        isinstance(error, RuntimeError) and text.startswith("CUDA")
    ):
        if "out of memory" not in text:
            return ""
        return f"the memory of the GPU is used up{_asked_for(text)}; {SMALLER}; {GOES_ON}"
    is_torch = isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    if isinstance(error, MemoryError) or is_torch or getattr(error, "errno", None) == errno.ENOMEM:
        return f"the memory of this machine, or what this process may take of it, is used up{_asked_for(text)}; " + (
            f"{SMALLER}; {GOES_ON}"
        )
    if isinstance(error, RuntimeError) and re.match(r"DataLoader worker .* killed by signal: Killed", text):
        return (
            "a process that decodes images was killed, by somebody, or by the kernel for want of memory, and then "
            f"other programs must end, or fewer --workers run; {GOES_ON}"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return f"no further thread can be started; raise the limit (ulimit -u) or use fewer --workers; {GOES_ON}"
    return ""


def _asked_for(text: str) -> str:
    found = re.search(r"(?:[Tt]ried to allocate|[Uu]nable to allocate) ([\d.]+ \w+)", text)
    return f" (asked for {found[1]})" if found else ""


DATABASE = {
    "database or disk is full": f"no room is left for it; {FREE_SPACE}, or raise the file-size limit (ulimit -f)",
    "disk I/O error": "its disk is full, failing or without locks (as some network mounts), or a file-size limit "
    f"(ulimit -f) is reached; {FREE_SPACE}",
    "locking protocol": "its disk has no locks that hold (as some network mounts); put the project on a local disk",
    "attempt to write a readonly database": "its file or folder may only be read; mend their permissions",
    "unable to open database file": "its file cannot be opened; see that it is a file, that its folder exists and that "
    "neither may only be read",
    "database is locked": "another process has kept it locked; see which, and end it",
    "database disk image is malformed": "its file is damaged; restore it from a copy",
}
"""SQLite's message -> what is wrong and what helps."""


def _of_database(error: BaseException) -> str:
    """The failure of the tracking store; MLflow repeats the database's words in an exception of its own."""
    if not any(kind.__module__.startswith(("sqlite3", "sqlalchemy", "mlflow")) for kind in type(error).__mro__):
        return ""
    text = str(error)
    for said, helps in DATABASE.items():
        if said in text:
            return f"the tracking store cannot be written ({said}): {helps}; {GOES_ON}"
    return ""


def _of_system(error: BaseException) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    number, path = error.errno, error.filename
    where = str(path) if path is not None else "a file"
    if number in (errno.ENOSPC, errno.EDQUOT):
        what = "no room is left on" if number == errno.ENOSPC else "the quota is used up of"
        return f"{what} the disk of {path or _fullest()}; {FREE_SPACE}; {GOES_ON}"
    told = {
        errno.EFBIG: f"{where} would become larger than this process may write; raise the limit (ulimit -f)",
        errno.EROFS: f"{where} lies on a disk that may only be read; mount it for writing, or use another folder",
        errno.EACCES: f"this user may not use {where}; mend its permissions, or use another folder",
        errno.EPERM: f"the system does not permit this on {where} (its owner, a flag such as immutable, or a file "
        "system that cannot do it); mend that, or use another folder",
        errno.EMFILE: "this process has too many files open; raise the limit (ulimit -n), or use fewer --workers",
        errno.ENFILE: "this machine has too many files open; end other programs, or use fewer --workers",
        errno.EIO: f"{where} cannot be read or written (a failing disk, a lost mount or a terminal that is gone); see "
        "the kernel's log (dmesg)",
        errno.ESTALE: f"{where} is gone from its network mount; mount it again",
        errno.ENOTCONN: f"the mount that holds {where} is gone; mount it again",
        errno.ENOTSUP: f"the file system of {where} cannot do what is asked of it; put the project on a local disk",
        errno.ENOLCK: f"the file system of {where} has no locks; put the project on a local disk",
    }.get(number, "")
    return told and f"{told}; {GOES_ON}"


def _fullest() -> Path:
    """The folder with the least room, of those that we write to, because a failed write does not say where it was."""
    return min((Path.cwd(), Path(tempfile.gettempdir())), key=lambda folder: shutil.disk_usage(folder).free)
