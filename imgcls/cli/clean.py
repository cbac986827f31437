"""Make room in the record."""

from typing import Annotated

import typer

from imgcls.cli.arguments import AsJsonList, open_tracker
from imgcls.cli.output import print_json, write


def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this, it is only listed.")] = False,
    as_json: AsJsonList = False,
) -> None:
    """Show what of the record's files may go, by kind and size; --yes removes it.

    That is what trials and runs that have ended would be resumed from, the weights of trials that were not chosen,
    leftovers of killed processes and the artifacts of deleted runs. It never touches a winner, a confirmed or judged
    run, the weights of a run of `train`, or a run that goes on; and no metric, prediction or report of any.

    Example: imgcls clean
    """
    from imgcls.clean import as_text, look_through, remove

    found = look_through(open_tracker())
    if not as_json:
        write(as_text(found))
    if yes:
        remove(found)
    if as_json:
        print_json([item.flat() | {"removed": yes} for item in found.items])
    elif found.items:
        write("removed" if yes else "nothing was removed; imgcls clean --yes does it")
