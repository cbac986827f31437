"""The decoded images and the features that are kept."""

from collections.abc import Sequence
from typing import Annotated

import typer

from imgcls.cli.arguments import AsJsonList
from imgcls.cli.output import print_json, write


def cache(
    prune: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Remove what was used least recently until SIZE is left: 20GB, or 0 for all."
        ),
    ] = None,
    as_json: AsJsonList = False,
) -> None:
    """List the decoded images and the features that are kept, which need no computing again; or make room.

    Features are those of train.head_only. All of it lies in IMGCLS_CACHE and takes IMGCLS_CACHE_BYTES at most (such as
    20GB; by default half of what the disk has left for it). Images that need more are decoded again in each epoch, and
    features that need more are computed again by each process.

    Example: imgcls cache --prune 20GB
    """
    from imgcls.data.cache_folder import budget, cache_folder, entries, parse_size, size_in_words
    from imgcls.data.cache_folder import prune as remove

    removed = [] if prune is None else remove(parse_size(prune, "--prune"))
    found = entries()
    if as_json:
        kept_and_removed = [(found, False), (removed, True)]
        print_json([entry.flat() | {"removed": gone} for some, gone in kept_and_removed for entry in some])
        return
    if prune is not None:
        write(f"removed {_counted(removed)} of {size_in_words(sum(entry.num_bytes for entry in removed))}")
    for entry in found:
        write(f"{size_in_words(entry.num_bytes):>9}  used {entry.last_used}  {entry.about}")
    total = sum(entry.num_bytes for entry in found)
    write(f"{cache_folder()}: {size_in_words(total)} of {size_in_words(budget())} in {_counted(found)}")


def _counted(entries: Sequence[object]) -> str:
    return f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}"
