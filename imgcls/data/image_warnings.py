"""Warnings about the images of a run, which can be held until it is known whether they were given before."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)
"""Logger for warnings about the images themselves: near duplicates, unreadable files, shares of groups."""


@contextmanager
def held_warnings() -> Iterator[list[str]]:
    """Image warnings, collected in the block instead of logged; if the block fails, they are logged."""
    held: list[logging.LogRecord] = []
    texts: list[str] = []

    def hold(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        held.append(record)
        texts.append(record.getMessage())
        return False

    log.addFilter(hold)
    try:
        yield texts
        held.clear()
    finally:
        log.removeFilter(hold)
        for record in held:
            log.handle(record)
