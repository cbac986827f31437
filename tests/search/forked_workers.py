"""Workers as processes of their own."""

import logging
import multiprocessing
import os
import sys

from imgcls.errors import Interrupted

FORK = multiprocessing.get_context("fork")
"""The processes have imported all libraries already, which would take seconds for each."""


def start(function, *args):
    """A process of its own; what it says goes to a file that is shown where it fails."""
    process = FORK.Process(target=_run, args=(function, args))
    process.start()
    return process


def _run(function, args):
    logging.basicConfig(level=logging.INFO, format=f"{os.getpid()} %(message)s", stream=sys.stderr, force=True)
    try:
        function(*args)
    except Interrupted as error:
        sys.stderr.write(f"{os.getpid()}: {error}\n")
        os._exit(3)


def join(processes, codes=(0,)):
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} <= set(codes)
