"""Groups of images that belong together (a patient, a panel, a burst): their names, and splits that part no group."""

import csv
import hashlib
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from imgcls.data.image_set import SourceImages
from imgcls.data.sources.source import Source
from imgcls.errors import DataError
from imgcls.text import listed, nfc

SHARE_TOLERANCE = 0.02
"""Largest difference from the wanted share of the images that is as good as none; a larger one is warned of."""

CLASS_TOLERANCE = 0.1
"""The same for the share of each class, of which nobody is warned."""

MOST_FOLDS = 20
"""Largest number of folds; there are more where the share is below a twentieth."""

MOST_LISTED = 20
"""Number of images that an error lists."""


def with_groups(source: Source, setting: str | Path) -> Source:
    """Groups the images of a source as `data.groups` says: gives it the name of the group of each image.

    `setting` is `data.groups`: a regular expression for the source's keys, a .csv file, or ""; see `Project.groups`.

    Raises:
        DataError: images without a group, a file that cannot be used, rows that name no image; offenders are listed.
    """
    if not setting:
        return source
    tables = list(source.given.values()) if source.everything is None else [source.everything]
    keys = [key for table in tables for key in table.keys]
    names = _of_file(setting, keys) if isinstance(setting, Path) else _of_paths(setting, keys)

    def grouped(table: SourceImages) -> SourceImages:
        return replace(table, groups=tuple(names[key] for key in table.keys))

    return replace(
        source,
        given={split: grouped(table) for split, table in source.given.items()},
        everything=None if source.everything is None else grouped(source.everything),
    )


def _of_paths(expression: str, keys: Sequence[str]) -> dict[str, str]:
    pattern = re.compile(nfc(expression))
    names = {key: match[min(1, pattern.groups)] or "" for key in keys if (match := pattern.search(key))}
    nameless = [key for key in keys if not names.get(key)]
    if nameless:
        raise _refusal(
            f"data.groups = {expression!r} finds no group in {len(nameless)} of {len(keys)} paths, such as", nameless
        )
    return names


def _of_file(path: Path, keys: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = dict.fromkeys(keys, "")
    missing, problems = set(keys), []
    for line, image, group in _rows(path):
        missing.discard(image)
        if image not in names:
            problems.append(f"line {line}: there is no image {image!r}")
        elif not group:
            problems.append(f"line {line}: {image} has no group")
        elif names[image] not in ("", group):
            problems.append(f"line {line}: {image} is in group {names[image]!r} already")
        else:
            names[image] = group
    problems += [f"{key} is missing" for key in keys if key in missing]
    if problems:
        raise _refusal(f"data.groups: {path} does not fit the images", problems)
    return names


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, image, group) of each row."""
    if path.exists() and not path.is_file():  # a pipe would keep its reader waiting forever
        raise DataError(f"data.groups: {path} is not a file; name a .csv file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if sorted(header) != ["group", "image"]:
                there = ", ".join(map(repr, header)) or "none"
                raise DataError(f"data.groups: {path} must have the columns image and group, and has {there}")
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise DataError(f"data.groups: {path}, line {reader.line_num}: {len(row)} values for 2 columns")
                of = dict(zip(header, row, strict=True))
                yield reader.line_num, nfc(PurePosixPath(of["image"]).as_posix()), nfc(of["group"].strip())
    except OSError as error:
        raise DataError(f"data.groups: {path}: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"data.groups: {path} is not a CSV file in UTF-8: {error}") from error


def _refusal(headline: str, problems: Sequence[str]) -> DataError:
    return DataError("\n".join([f"{headline}:", *listed(problems, most=MOST_LISTED)]))


# --- carving ----------------------------------------------------------------------------------------------------


def carve_groups(
    digests: NDArray[np.uint8], labels: NDArray[np.int64], groups: Sequence[str], fraction: float, salt: str
) -> NDArray[np.bool_]:
    """Groups of images, dealt whole to a split that is carved: about a share of the images, nearly stratified.

    scikit-learn's StratifiedGroupKFold deals the groups to folds, and a run of neighbours is taken: the first whose
    shares of all images and of each class are within `SHARE_TOLERANCE` and `CLASS_TOLERANCE` of the fraction, else the
    one that exceeds these least. Groups are numbered and folds ordered by SHA-256(salt, digests of a group's images),
    so neither the names of groups and files nor the order of either matter. Groups that share an image are one group.
    No class gives its last group. `digests`, `labels`, `salt` and the result are those of `splits.carve`; `groups` are
    N names, and at least one image is chosen.

    Raises:
        DataError: where no group can be spared.
    """
    numbers = number_groups(digests, groups, salt)
    sizes = np.bincount(numbers)
    most_folds = min(len(sizes), int(np.bincount(labels).max()), max(MOST_FOLDS, math.ceil(1 / fraction)))
    choices = []
    if most_folds > 1:
        num_taken, num_folds = _parts(fraction, most_folds)
        folds = deal_groups(labels, numbers, num_folds)
        for first in range(num_folds):
            taken = (folds - first) % num_folds < num_taken
            choices.append(_without_last_groups(taken, labels, numbers))
    choices = [chosen for chosen in choices if chosen.any()]
    if not choices:
        largest = ", ".join(f"{size / len(labels):.1%}" for size in sorted(sizes, reverse=True)[:5])
        raise DataError(
            f"data.groups: of {len(sizes)} groups, none can be spared for a split of {fraction:.1%}, since each class "
            f"keeps a group in train; the largest hold {largest} of the images. Use smaller groups, or add images"
        )
    return min(choices, key=lambda chosen: _excess(chosen, labels, fraction))


def _excess(chosen: NDArray[np.bool_], labels: NDArray[np.int64], fraction: float) -> float:
    """By how much a choice's shares lie beyond what is tolerated."""
    counts = np.bincount(labels)
    shares = np.bincount(labels[chosen], minlength=len(counts))[counts > 0] / counts[counts > 0]
    of_all, of_class = abs(chosen.mean() - fraction), np.abs(shares - fraction).max()
    return max(0.0, float(of_all) - SHARE_TOLERANCE) + max(0.0, float(of_class) - CLASS_TOLERANCE)


def number_groups(digests: NDArray[np.uint8], groups: Sequence[str], salt: str) -> NDArray[np.int64]:
    """Numbers groups in an order that the salt and the content of their images fix; those that share one are one group.

    Returns:
        int64 (N,): the number of each image's group, from 0.
    """
    _, of_group = np.unique(np.asarray(groups), return_inverse=True)
    _, of_content = np.unique(digests, axis=0, return_inverse=True)
    ends = of_group, of_content.reshape(-1) + of_group.max() + 1
    num_nodes = int(ends[1].max()) + 1
    edges = coo_array((np.ones(len(groups), bool), ends), shape=(num_nodes, num_nodes))
    _, components = connected_components(edges, directed=False)
    joined = components[of_group]
    contents: dict[int, list[bytes]] = {}
    for number, digest in zip(joined.tolist(), digests, strict=True):
        contents.setdefault(number, []).append(digest.tobytes())
    ranks = {
        number: hashlib.sha256(salt.encode() + b"|" + b"".join(sorted(members))).digest()
        for number, members in contents.items()
    }
    position = {number: place for place, number in enumerate(sorted(ranks, key=ranks.__getitem__))}
    return np.array([position[number] for number in joined.tolist()], np.int64)


def _parts(fraction: float, most_folds: int) -> tuple[int, int]:
    """(k, n): k of n folds are about the fraction. The fewest folds that do, since small ones are not stratified."""
    parts = [(min(max(1, round(fraction * n)), n - 1), n) for n in range(2, most_folds + 1)]
    near = (part for part in parts if abs(part[0] / part[1] - fraction) <= SHARE_TOLERANCE / 2)
    return next(near, min(parts, key=lambda part: abs(part[0] / part[1] - fraction)))


def deal_groups(labels: NDArray[np.int64], numbers: NDArray[np.int64], num_folds: int) -> NDArray[np.int64]:
    """Deals whole groups to folds, stratified by class: int64 (N,), the fold of each image, from 0.

    The first fold is that of the first group, and so on.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import, and few folders have groups

    folds = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        # That a class has fewer images than there are folds is seen in the shares, which are checked.
        warnings.filterwarnings("ignore", message="The least populated class")
        parts = list(StratifiedGroupKFold(num_folds).split(labels, labels, numbers))
    members = sorted((fold for _, fold in parts), key=lambda fold: numbers[fold].min(initial=len(labels)))
    for place, fold in enumerate(members):
        folds[fold] = place
    return folds


def _without_last_groups(
    chosen: NDArray[np.bool_], labels: NDArray[np.int64], numbers: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The choice, less a group of each class that would else give all it has."""
    spared = chosen.copy()
    groups_of = {label: np.unique(numbers[labels == label]) for label in np.setdiff1d(labels[chosen], labels[~chosen])}
    # Classes of few groups first: what is kept for them may serve others too.
    for label in sorted(groups_of, key=lambda label: len(groups_of[label])):
        if spared[labels == label].all():
            spared[numbers == groups_of[label][0]] = False
    return spared
