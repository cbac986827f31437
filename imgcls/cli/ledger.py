"""List who opened a test split."""

from imgcls.cli.arguments import AsJsonList, open_tracker
from imgcls.cli.output import answer


def ledger(as_json: AsJsonList = False) -> None:
    """List every look at a test split: when, which images, which run, its score, who asked.

    Example: imgcls ledger
    """
    from imgcls.evaluation.ledger import as_text, past_looks

    looks = past_looks(open_tracker())
    answer([look.flat() for look in looks], as_text(looks), as_json=as_json)
