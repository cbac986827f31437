"""Contestants in processes of their own, asked in turn: while one works, the others wait.

Imports are paid before the first question, and what one contestant does to its process (allocator, threads,
settings of torch) touches no other.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from benchmarks.contestant import BARE, MOVED_LIMIT, USUAL, Contestant, Epoch
from benchmarks.works import Work

P = ParamSpec("P")
R = TypeVar("R")


class BenchmarkError(Exception):
    """A contestant failed; the message has what it printed last."""


def available(name: str) -> bool:
    """Whether a contestant's package is installed."""
    packages = {"lightning": "lightning", "timm": "timm"}
    return name not in packages or importlib.util.find_spec(packages[name]) is not None


def maker_of(name: str) -> Callable[[Work], Contestant]:
    """Imports what the contestant needs; what is returned makes it ready for a work."""
    if name == "ours":
        from benchmarks.ours import Ours

        return Ours
    if name == "ours_auto":
        from benchmarks.ours import Ours

        return partial(Ours, threads="auto")
    if name in BARE:
        from benchmarks.limit import Limit

        return partial(Limit, channels_last=name != "limit_nchw", moved=name == MOVED_LIMIT)
    if name in USUAL:
        from benchmarks.usual import Usual

        return partial(Usual, num_workers=int(name.removeprefix("usual_")))
    if name == "lightning":
        from benchmarks.lightning_peer import LightningPeer

        return LightningPeer
    from benchmarks.timm_peer import TimmPeer

    return TimmPeer


class Player:
    """A contestant's process, seen from here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._log = tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".log")  # noqa: SIM115
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        # Not a daemon, because those may have no children, and DataLoader's workers are.
        self._process = context.Process(target=_play, args=(there, name, self._log.name, _default_start()))
        self._process.start()
        there.close()

    def wait_until_ready(self) -> None:
        """Blocks until its imports are done."""
        self._answer()

    def take(self, work: Work) -> None:
        """Makes it ready for a work; the one before is forgotten."""
        self._ask(work)

    def first(self) -> Epoch:
        """See Contestant."""
        return Epoch(*self._ask("first"))

    def at_least(self, seconds: float) -> Epoch:
        """Whole epochs until so many seconds are over."""
        done = Epoch(*self._ask("epoch"))
        while done.seconds < seconds:
            done += Epoch(*self._ask("epoch"))
        return done

    def peak_megabytes(self) -> float:
        """Resident at the peak of this work, of its main process alone."""
        return float(self._ask("memory")["peak_resident"])

    def watched_epoch(self) -> float:
        """Trains an epoch under watch.

        Returns:
            The most memory, in MB, of the process and its helpers together; what they share counts once.
        """
        self._pipe.send("epoch")
        most = 0.0
        while True:
            most = max(most, tree_megabytes(self._process.pid or 0))
            if self._pipe.poll(timeout=0.2):
                break
        self._answer()
        return most

    def dismiss(self) -> None:
        """Lets the process go; `close` waits for it."""
        with suppress(OSError):  # it has ended already
            self._pipe.send("leave")

    def close(self) -> None:
        """Waits until the process is gone."""
        self._process.join(timeout=15)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._log.close()

    def _ask(self, question: str | Work) -> Any:
        self._pipe.send(question)
        return self._answer()

    def _answer(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except EOFError as error:
            raise BenchmarkError(f"{self.name} died:\n{Path(self._log.name).read_text()[-3000:]}") from error
        if kind == "failed":
            raise BenchmarkError(f"{self.name} failed:\n{value}")
        return value


@contextmanager
def players(names: Iterable[str]) -> Iterator[list[Player]]:
    """Processes of these contestants, but of those whose package is missing, ready for any number of works."""
    opened: list[Player] = []
    try:
        for name in filter(available, names):
            opened.append(Player(name))
        for player in opened:
            player.wait_until_ready()
        yield opened
    finally:
        for player in opened:
            player.dismiss()
        for player in opened:
            player.close()


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function of a module in a new process, with what it prints kept off the terminal.

    Raises:
        BenchmarkError: it failed.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with tempfile.NamedTemporaryFile(prefix="benchmark-", suffix=".log") as log:
        process = context.Process(target=_call, args=(there, log.name, _default_start(), function, args, kwargs))
        process.start()
        there.close()
        try:
            kind, value = here.recv()
        except EOFError as error:
            raise BenchmarkError(f"{function.__name__} died:\n{Path(log.name).read_text()[-3000:]}") from error
        finally:
            process.join(timeout=30)
            if process.is_alive():
                process.kill()
    if kind == "failed":
        raise BenchmarkError(f"{function.__name__} failed:\n{value}")
    result: R = value
    return result


def _default_start() -> str:
    """How this platform starts helpers: a spawned process would spawn its own, and DataLoader's begin much later."""
    return multiprocessing.get_start_method()


def _play(pipe: Connection, name: str, log: str, start_method: str) -> None:
    """The life of a contestant's process."""
    multiprocessing.set_start_method(start_method, force=True)
    _speak_into(log)
    try:
        importlib.import_module("torch._inductor")  # torch does so late, at the first optimizer; some packages at once
        make = maker_of(name)
        contestant: Contestant | None = None
        pipe.send(("done", None))
        while (question := pipe.recv()) != "leave":
            if isinstance(question, Work):
                contestant = None  # the old one's memory goes before the new one's comes
                gc.collect()
                _forget_peak()
                contestant = make(question)
                pipe.send(("done", None))
                continue
            if question == "memory":
                pipe.send(("done", memory_of_this_process()))
                continue
            assert contestant is not None
            epoch = contestant.first() if question == "first" else contestant.epoch()
            pipe.send(("done", (epoch.images, epoch.seconds)))
    except EOFError:  # whoever asked is gone
        return
    except Exception:
        pipe.send(("failed", traceback.format_exc()))


def _call(pipe: Connection, log: str, start_method: str, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    multiprocessing.set_start_method(start_method, force=True)
    _speak_into(log)
    try:
        pipe.send(("done", function(*args, **kwargs)))
    except Exception:
        pipe.send(("failed", traceback.format_exc()))


def _speak_into(log: str) -> None:
    """Bars and messages go to a file, as if the program were run with its output kept."""
    target = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def private_bytes() -> int:
    """Memory that this process shares with no other: Private_Clean + Private_Dirty."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def memory_of_this_process() -> dict[str, float]:
    """Megabytes: private now, and resident at the peak."""
    return {
        "private_now": private_bytes() / 1e6,
        "peak_resident": _peak_kilobytes() * 1024 / 1e6,
    }


def _peak_kilobytes() -> int:
    """Not getrusage's ru_maxrss, which a process takes over from the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _forget_peak() -> None:
    with suppress(OSError):  # where the kernel has no such file, the peak is that of the whole life
        Path("/proc/self/clear_refs").write_text("5")


def tree_megabytes(pid: int) -> float:
    """Proportional set sizes of a process and of all below it, which count shared pages once."""
    total = 0
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()  # each lists the processes that it started itself
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):  # it has ended meanwhile
        return 0.0
    return total * 1024 / 1e6 + sum(tree_megabytes(int(child)) for child in children)
