"""A command as it is typed, run in this process: what it says, and with which code it ends."""

import contextlib
import gc
import io
import logging
import subprocess
import sys
from unittest.mock import patch

from imgcls.cli import main


def typed(*arguments):
    """Runs `imgcls` with these arguments in this process, which has imported its libraries already.

    Returns:
        As subprocess.run does, but that pytest has the log, of which stderr shows nothing.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["imgcls", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        kept(),
    ):
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def kept():
    """Keeps what the command changes of its process for good: the log's guard and the garbage collector's pace."""
    factory, threshold = logging.getLogRecordFactory(), gc.get_threshold()
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        gc.set_threshold(*threshold)
