"""The process around a call of the library: made as in the shell for the call, and afterwards as the user had it."""

from __future__ import annotations

import logging
import os
import random
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from imgcls import terminal

log = logging.getLogger(__name__)


@contextmanager
def as_in_the_shell() -> Iterator[None]:
    """A block in which the surroundings are those of a verb in the shell.

    What an earlier call read is read again: images, and the place of the store. Messages are shown
    on stderr unless the program has set up logging, and no credential is in them. What the block changes in torch,
    logging, warnings, the random state and the environment is put back when it ends. Blocks of several threads that
    overlap share their surroundings, which are put back when the last of them ends.

    Raises:
        ImgclsError: also for a failure of the machine, such as a full disk; it holds no credential.
    """
    with _shared():
        from imgcls.machine_failures import explain
        from imgcls.tracking.credentials import scrub_error

        _forget()
        try:
            yield
        except Exception as error:
            scrub_error(error)
            if (explained := explain(error)) is not None:
                raise scrub_error(explained) from error
            raise
        finally:
            _forget()


class _Calls:
    """How many calls go on in all threads, and what puts the process back as it was before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.num = 0
        self.around = ExitStack()


_calls = _Calls()


@contextmanager
def _shared() -> Iterator[None]:
    """The surroundings of all calls that overlap: the first of them makes them, the last puts the user's back."""
    with _calls.lock:
        if not _calls.num:
            _calls.around = _entered()
        _calls.num += 1
    try:
        yield
    finally:
        with _calls.lock:
            _calls.num -= 1
            if not _calls.num:
                _calls.around.close()


def _entered() -> ExitStack:
    with ExitStack() as around:
        # Before the imports: some of them add filters of warnings, or draw random numbers.
        around.enter_context(warnings.catch_warnings())
        around.callback(random.setstate, random.getstate())

        from imgcls.data.decode import quieten_pillow
        from imgcls.tracking.credentials import guarded_logs
        from imgcls.tracking.mlflow_internals import databases_closed, levels_kept
        from imgcls.training.device import settings_kept

        for kept in (guarded_logs, _messages_shown, _environment_kept, levels_kept, databases_closed, settings_kept):
            around.enter_context(kept())
        quieten_pillow()
        return around.pop_all()


@contextmanager
def _messages_shown() -> Iterator[None]:
    """Shows the messages of imgcls on stderr, without a prefix, where nobody has set up logging for them."""
    ours = logging.getLogger("imgcls")
    if ours.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(terminal.stderr()), ours.level
    ours.addHandler(handler)
    ours.setLevel(level or logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Keeps the user's environment: what is set in the block is taken back.

    An address that `mlflow.set_tracking_uri` left in the environment is that of the user's own runs. In the block it is
    not there, nor is it in the processes that the block starts.
    """
    from imgcls.tracking.credentials import redacted
    from imgcls.tracking.mlflow_internals import session_uri
    from imgcls.tracking.remote_client import SETTINGS

    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "CUBLAS_WORKSPACE_CONFIG", *SETTINGS)}
    if (uri := session_uri()) is not None:
        del os.environ["MLFLOW_TRACKING_URI"]
        log.info(
            "mlflow.set_tracking_uri(%r) is left to your own runs: imgcls keeps its record in the project. To have the "
            "record there, start Python with MLFLOW_TRACKING_URI in its environment", redacted(uri),
        )  # fmt: skip
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _forget() -> None:
    """Forgets what may have changed by the next call, and releases the images."""
    from imgcls.models.downloads import why_unreachable
    from imgcls.runs.prepare import cached_dataset
    from imgcls.search.trial import cached_tracker

    for cached in (cached_dataset, cached_tracker, why_unreachable):
        cached.cache_clear()
