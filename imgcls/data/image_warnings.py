"""Warnings about images, kept for whoever knows whether they were given before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

ABOUT_IMAGES = ("imgcls.data.leaks", "imgcls.data.splits", "imgcls.data.sources.torchvision")
"""Loggers of the modules that warn of the images themselves: near duplicates, unreadable files, shares of groups."""


@contextmanager
def held_warnings() -> Iterator[list[str]]:
    """Collects what the block warns of its images, instead of logging it; where the block fails, it is logged."""
    held: list[logging.LogRecord] = []
    texts: list[str] = []

    def hold(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        held.append(record)
        texts.append(record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in ABOUT_IMAGES]
    for logger in loggers:
        logger.addFilter(hold)
    try:
        yield texts
        held.clear()
    finally:
        for logger in loggers:
            logger.removeFilter(hold)
        for record in held:
            logging.getLogger(record.name).handle(record)
