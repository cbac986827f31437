"""List who opened a test split."""

from __future__ import annotations

from imgcls.cli.arguments import AsJsonList, open_tracker
from imgcls.cli.output import print_json, write


def ledger(as_json: AsJsonList = False) -> None:
    """List every look at a test split: when, which images, which run, its score, who asked.

    Example: imgcls ledger
    """
    from imgcls.evaluation.ledger import as_text, past_looks

    looks = past_looks(open_tracker())
    if as_json:
        print_json([look.flat() for look in looks])
    else:
        write(as_text(looks))
