"""List who opened a test split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imgcls.cli.arguments import AsJsonList
from imgcls.cli.output import print_json, write

if TYPE_CHECKING:
    pass


def ledger(as_json: AsJsonList = False) -> None:
    """List every look at a test split: when, which images, which run, its score, who asked.

    Example: imgcls ledger
    """
    from imgcls.evaluation.ledger import as_text, past_looks
    from imgcls.project import project_root
    from imgcls.tracking.store import Tracker

    looks = past_looks(Tracker(project_root(Path.cwd())))
    if as_json:
        print_json([look.flat() for look in looks])
    else:
        write(as_text(looks))
