"""The heartbeat of a run: how other machines see that its process lives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from imgcls.tracking.provenance import HEARTBEAT_SECONDS, heartbeat
from imgcls.tracking.run import Run

SECONDS_TO_END = 2.0
"""So long the end of a run waits for a heartbeat under way, which a busy store may hold up."""

log = logging.getLogger(__name__)


@contextmanager
def beating(run: Run) -> Iterator[None]:
    """Renews the tag `imgcls.heartbeat` of a run every HEARTBEAT_SECONDS, beside whatever the block does."""
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(run, ended), name=f"heartbeat of {run.run_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=SECONDS_TO_END)  # a late heartbeat does no harm


def _beat(run: Run, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        try:
            run.set_tags(heartbeat())
        except Exception as error:  # a store that cannot be written is the run's own trouble, and it says so
            log.debug("no heartbeat for run %s: %s", run.run_id, error)
