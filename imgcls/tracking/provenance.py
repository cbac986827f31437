"""Where a run comes from: who runs it, on what, with which versions, from which commit; unknown is said as such."""

import getpass
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from imgcls.record import UNKNOWN, Tag
from imgcls.tracking.credentials import scrubbed

log = logging.getLogger(__name__)

GIT_SECONDS = 20.0
"""Seconds that one git command may take."""

LOCATING = frozenset({
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_SHALLOW_FILE",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_GRAFT_FILE", "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG", "GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS", "GIT_IMPLICIT_WORK_TREE",
})  # fmt: skip
"""Variables that point git at another repository than the one around a folder (`git rev-parse --local-env-vars`).

Hooks and aliases set them. Those that carry settings, such as `GIT_CONFIG_COUNT`, are kept.
"""

CODE = frozenset({".py", ".pyx", ".so", ".pyd"})
"""Endings of files that Python imports or is built from."""

MOST_LISTED = 20
"""Most changed files that the tag names."""


def versions() -> dict[str, str]:
    """Provenance of a result: package -> version; `unknown` where a package does not tell its own."""
    names = ("imgcls", "torch", "torchvision", "numpy", "pillow", "mlflow", "optuna")
    return {"python": ".".join(map(str, sys.version_info[:3]))} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name) or UNKNOWN  # None where the metadata are damaged, whatever the types say
    except PackageNotFoundError:  # run from its sources, without an installation
        return UNKNOWN


def who_runs() -> dict[str, str]:
    """Provenance tags of a run: who runs it, in which process of which machine."""
    return {
        Tag.HOST: socket.gethostname(),
        Tag.PID: str(os.getpid()),
        Tag.USER: _user(),
        Tag.SOURCE_NAME: "imgcls",
        Tag.SOURCE_TYPE: "LOCAL",
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        return str(os.getuid())


class _UnknownError(Exception):
    """Git did not answer; the text says why."""


def git_tags(root: Path) -> dict[str, str]:
    """Provenance tags of a run: the git commit of its project, and whether files differ from it.

    There are none where no repository holds the project. A file that git does not track counts as a change only if it
    is code: an experiment or a folder of images does not.
    """
    top = next((folder for folder in (root, *root.parents) if os.path.lexists(folder / ".git")), None)
    if top is None:
        return {}
    try:
        commit = _commit(root, top)
        if root != top and not _git(root, "ls-tree", "HEAD"):
            return {}  # the repository lies around the project and holds none of its files
    except _UnknownError as reason:
        return {Tag.GIT_COMMIT: UNKNOWN, Tag.GIT_DIRTY: UNKNOWN, **_told(str(reason), "commit")}
    tags = {Tag.GIT_COMMIT: commit, Tag.MLFLOW_COMMIT: commit}
    try:
        changed = _changes(root, top)
    except _UnknownError as reason:
        return tags | {Tag.GIT_DIRTY: UNKNOWN, **_told(str(reason), "state of the files")}
    if not changed:
        return tags | {Tag.GIT_DIRTY: "false"}
    return tags | {Tag.GIT_DIRTY: "true", Tag.GIT_CHANGED: _listed(changed)}


def _commit(root: Path, top: Path) -> str:
    found, _, commit = _git(root, "rev-parse", "--show-toplevel", "--verify", "HEAD").rpartition("\n")
    if not top.samefile(found):  # git passes over a damaged .git, and may find another one further up
        raise _UnknownError(f"git does not take {top / '.git'} for a repository; mend it, or remove it")
    return commit


def _changes(root: Path, top: Path) -> list[str]:
    """Paths from the top of the repository."""
    said = _git(
        root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal", "--ignore-submodules=untracked"
    )
    entries = [(entry[:2], entry[3:]) for entry in said.split("\0") if entry]
    if not all(path for _, path in entries):  # git reads a file that is cut short as if zeros followed
        raise _UnknownError("the index is damaged; `git read-tree HEAD` makes it again")
    return [path for state, path in entries if state != "??" or _is_code(top / path)]


def _is_code(path: Path) -> bool:
    """Whether Python could import a file, or a folder of which git names no single file."""
    return path.suffix in CODE or (path / "__init__.py").exists()


def _listed(paths: Sequence[str]) -> str:
    """The first few paths; names that are not UTF-8 are spelt out, because no store takes them."""
    shown = [path.encode(errors="backslashreplace").decode() for path in paths[:MOST_LISTED]]
    more = f" and {len(paths) - len(shown)} more" if len(paths) > len(shown) else ""
    return (", ".join(shown) + more)[:1000]


def _git(root: Path, verb: str, *arguments: str) -> str:
    """What git prints when it runs in the project's root.

    Raises:
        _UnknownError: git is not there, fails or takes too long.
    """
    # Git starts no monitor that the user's settings name, leaves the index alone, and answers in English.
    command = ["git", "-C", str(root), "-c", "core.fsmonitor=false", verb, *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in LOCATING}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, env=environment, check=False)
    except FileNotFoundError:
        raise _UnknownError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise _UnknownError(f"`git {verb}` took longer than {GIT_SECONDS:g} s") from None
    except OSError as error:
        raise _UnknownError(f"git cannot be run: {error.strerror or error}") from error
    if done.returncode:
        raise _UnknownError(_git_reason(done.stderr, done.returncode))
    return done.stdout.decode(errors="surrogateescape").removesuffix("\n")


def _git_reason(said: bytes, code: int) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    fatal = next((line.removeprefix("fatal: ") for line in lines if line.startswith("fatal: ")), "")
    text = scrubbed(fatal or (lines[0] if lines else f"git ended with exit code {code}"))
    if "dubious ownership" in text:
        text += "; `git config --global --add safe.directory FOLDER` lets git read it"
    if "Needed a single revision" in text:
        text = "HEAD names no commit: none was made yet, or the branch is damaged"
    return text[:500]


@cache
def _told(reason: str, what: str) -> dict[str, str]:
    """The tag with the reason; a warning also gives it, once in a process."""
    log.warning("the %s is not recorded, because git does not tell it: %s", what, reason)
    return {Tag.GIT_UNKNOWN: reason}
