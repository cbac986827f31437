"""The heartbeat of a run: how other machines see that its process lives."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from imgcls.run_record import RunRecord
from imgcls.tracking.run import Run

HEARTBEAT_SECONDS = 30.0
"""Seconds between two heartbeats of a run."""

SILENT_SECONDS = 600.0
"""Seconds without a heartbeat after which the process of a run on another machine counts as gone."""

SECONDS_TO_END = 2.0
"""Seconds that the end of a run waits for a heartbeat that is being written, which a busy store may hold up."""

log = logging.getLogger(__name__)


@contextmanager
def beating(run: Run) -> Iterator[None]:
    """Renews the heartbeat of a run every HEARTBEAT_SECONDS, beside whatever the block does."""
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
            run.beat()
        except Exception as error:  # a store that cannot be written is the run's own trouble, and it says so
            log.debug("no heartbeat for run %s: %s", run.run_id, error)


def seconds_to_silence(record: RunRecord) -> float:
    """The heartbeat's seconds left until a run counts as gone if no further one follows; not above 0 once it does."""
    return float(record.process.get("heartbeat", 0)) + SILENT_SECONDS - time.time()
