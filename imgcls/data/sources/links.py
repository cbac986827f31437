"""Links in a folder of images that lead out of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgcls.data.image_formats import may_be_image
from imgcls.data.sources.folder_layout import is_folder, is_set_aside
from imgcls.errors import DataError
from imgcls.text import listed


def refuse_links_out(root: Path, folders: Iterable[Path]) -> None:
    """A folder of images that somebody else made may have links to files that are none of its maker's business.

    Raises:
        DataError: naming each link and where it leads.
    """
    if offenders := sorted(_links_out(root, folders)):
        raise DataError(
            "\n".join([
                f"{root} has links that lead out of it:", *listed(offenders),
                "copy what they lead to into the folder, or allow them with data.follow_symlinks = true",
            ])
        )  # fmt: skip


def _links_out(root: Path, folders: Iterable[Path]) -> Iterator[str]:
    """`path -> where it leads` of each link, at any depth below `folders`, whose end lies outside of `root`."""
    # os.path.realpath, since Path.resolve raises where links lead in a circle.
    home = os.path.realpath(root)
    unseen, seen = list(folders), set()
    while unseen:
        folder = unseen.pop()
        real = os.path.realpath(folder)
        if not Path(real).is_relative_to(home):
            yield f"{folder} -> {real}"
        elif real not in seen:
            seen.add(real)
            links, inner = _links_and_folders(folder)
            unseen += inner
            ends = ((link, os.path.realpath(link)) for link in links)
            yield from (f"{link} -> {end}" for link, end in ends if not Path(end).is_relative_to(home))


def _links_and_folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """Links to files that would be opened, and folders, linked ones included; what is set aside is left out."""
    links, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_set_aside(entry.name):
                    continue
                if is_folder(entry):
                    folders.append(folder / entry.name)
                elif entry.is_symlink() and may_be_image(entry.name):
                    links.append(folder / entry.name)
    except OSError:  # whoever lists the images says so
        return [], []
    return links, folders
