"""What splits share that they should not, found from hashes, labels and names alone.

Identical images and groups in several splits are leaks. Near duplicates may be. Identical images of train that disagree
on their class are no leak, and worth a look all the same.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice, product

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from imgcls.data import cache
from imgcls.data.labelled import LabelledImages, content_order
from imgcls.data.sources import Split, listed
from imgcls.errors import DataError

log = logging.getLogger(__name__)

FORMAT = "1"
"""Part of the key of kept findings: raise it when the search finds other things."""

NEAR_BITS = 1
"""Bits in which the difference hashes of near duplicates may differ."""
# Of 150 solar cells saved as JPEG, brightened, with more contrast or made smaller, 95 to 100 % differ in one bit at
# most. Two bits find a few per cent more, and three times as many pairs of cells that are only alike (431, then 1,437).
# In Fashion-MNIST one bit joins far too many as it is: 47,786 pairs of train and val, 26 of which correlate above 0.99.

LISTED = 10
"""Pairs of near duplicates that are kept and drawn, of each pair of splits; all are counted."""

SHOWN = 3
"""Those of them that the warning names: it comes in every process that loads the data."""

ONE_LABEL = "imgcls has one label an image, so keep each in one class, or give images of both a class of their own"
"""What to do about one image in two classes."""


@dataclass(frozen=True)
class Listed:
    """A split without its pixels.

    Attributes:
        keys: N names.
        labels: int64 (N,).
        digests: uint8 (N, 32).
        perceptual: uint64 (N,); 0 says nothing, and is near to nothing.
        groups: N names, or none.
    """

    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    digests: NDArray[np.uint8]
    perceptual: NDArray[np.uint64]
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, images: LabelledImages) -> Listed:
        """What is listed of decoded images."""
        return cls(images.keys, images.labels, images.digests, images.perceptual, images.groups)

    def in_content_order(self) -> Listed:
        """Sorted as `LabelledImages.in_content_order` does."""
        order = content_order(self.digests, self.labels, self.keys)
        return Listed(
            tuple(self.keys[i] for i in order),
            self.labels[order],
            self.digests[order],
            self.perceptual[order],
            tuple(self.groups[i] for i in order) if self.groups else (),
        )


@dataclass(frozen=True)
class Identical:
    """One picture that stands in two splits, pixel by pixel.

    Attributes:
        splits: which two.
        first: its names in the first of them.
        second: its names in the second.
    """

    splits: tuple[Split, Split]
    first: tuple[str, ...]
    second: tuple[str, ...]


@dataclass(frozen=True)
class Near:
    """Near duplicates between two splits.

    Attributes:
        splits: which two.
        num_pairs: pairs of images; identical ones are not among them.
        named: names of the first few pairs, each picture once.
    """

    splits: tuple[Split, Split]
    num_pairs: int
    named: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Spanning:
    """A group that stands in several splits: how many of its images are in each."""

    group: str
    num_images: dict[Split, int]


@dataclass(frozen=True)
class Leaks:
    """What was found.

    Attributes:
        num_images: of each split.
        identical: pictures that stand in two splits.
        spanning: groups that stand in several splits.
        near: near duplicates, for each two splits that have some.
        conflicts: names and classes of train images that are identical but for their class, a tuple for each picture.
    """

    num_images: dict[Split, int]
    identical: tuple[Identical, ...] = ()
    spanning: tuple[Spanning, ...] = ()
    near: tuple[Near, ...] = ()
    conflicts: tuple[tuple[str, ...], ...] = ()

    @property
    def num_leaked(self) -> int:
        """Test images whose pixels stand in train or val too."""
        return self._num_known("test")

    @property
    def summary(self) -> str:
        """One line on what leaks; empty where nothing does. Near duplicates are no leak for certain, and not in it."""
        others: dict[Split, str] = {"test": "train or val", "val": "train"}
        parts = [
            f"{num} of {self.num_images[split]} {split} images stand in {others[split]}, pixel by pixel"
            for split in others
            if (num := self._num_known(split))
        ]
        if self.spanning:
            num = len(self.spanning)
            parts.append("1 group spans splits" if num == 1 else f"{num} groups span splits")
        return "; ".join(parts)

    def between(self, first: Split, second: Split) -> Near:
        """Near duplicates of two splits."""
        return next((near for near in self.near if near.splits == (first, second)), Near((first, second), 0, ()))

    def lines(self) -> list[str]:
        """Every identical picture and every spanning group, a line each."""
        pictures = [
            f"  {leak.splits[0]} {', '.join(leak.first)} = {leak.splits[1]} {', '.join(leak.second)}"
            for leak in self.identical
        ]
        groups = [
            f"  group {leak.group}: " + ", ".join(f"{num} in {split}" for split, num in leak.num_images.items())
            for leak in self.spanning
        ]
        return pictures + groups

    def _num_known(self, split: Split) -> int:
        return len({name for leak in self.identical if leak.splits[1] == split for name in leak.second})


def heed(leaks: Leaks, *, allowed: bool, origin: str) -> None:
    """Stops on leaks, or says them where they are allowed; warns of what may be one.

    Args:
        leaks: of a data set.
        allowed: `data.allow_leaks`.
        origin: what the names of images are relative to.

    Raises:
        DataError: listing every leak, where they are not allowed.
    """
    if leaks.summary and not allowed:
        where = f" (paths in {origin})" if origin else ""
        raise DataError(
            "\n".join([
                f"splits leak: {leaks.summary}{where}:", *leaks.lines(),
                "remove them from one of the splits, or let imgcls carve the splits itself from one folder per class, "
                "or go on with data.allow_leaks = true, which every score will say",
            ])
        )  # fmt: skip
    if leaks.summary:
        log.warning("\n".join([f"data.allow_leaks: {leaks.summary}:", *leaks.lines()]))
    if leaks.conflicts:
        pictures = [" = ".join(names) for names in leaks.conflicts]
        log.warning("\n".join([f"identical train images have different classes; {ONE_LABEL}:", *listed(pictures)]))
    for near in leaks.near:
        pairs = [f"{one} ~ {other}" for one, other in near.named]
        found = f"{near.num_pairs} {'pair' if near.num_pairs == 1 else 'pairs'} of {' and '.join(near.splits)} images"
        headline = f"near duplicates: {found} look alike; where they are of one thing, data.groups keeps them together:"
        log.warning("\n".join([headline, *listed(pairs, near.num_pairs, SHOWN)]))


# --- the search -------------------------------------------------------------------------------------------------


def find_leaks(splits: Mapping[Split, Listed], class_names: Sequence[str]) -> Leaks:
    """Searches, or reads what an earlier search of the same images left in the cache folder.

    Args:
        splits: those that there are, train, val and test in this order.
        class_names: name of each label.

    Raises:
        DataError: where the cache folder cannot be written.
    """
    ordered = {split: images.in_content_order() for split, images in splits.items()}
    text = cache.remember(
        f"leaks-{_key(ordered, class_names)}.json", lambda: _LEAKS.dump_json(_search(ordered, class_names)).decode()
    )
    return _LEAKS.validate_json(text)


_LEAKS = TypeAdapter(Leaks)


def _key(splits: Mapping[Split, Listed], class_names: Sequence[str]) -> str:
    """Names everything that the findings depend on."""
    hasher = hashlib.sha256(repr((FORMAT, NEAR_BITS, LISTED, tuple(class_names))).encode())
    for split, images in splits.items():
        hasher.update(repr((split, images.keys, images.groups)).encode())
        for array in (images.labels, images.digests, images.perceptual):
            hasher.update(array.tobytes())
    return hasher.hexdigest()[:32]


def _search(splits: Mapping[Split, Listed], class_names: Sequence[str]) -> Leaks:
    identical: list[Identical] = []
    near: list[Near] = []
    rows = {split: _rows_of_pictures(images) for split, images in splits.items()}
    for first, second in combinations(splits, 2):
        shared = [(rows[first][picture], rows[second][picture]) for picture in rows[first] if picture in rows[second]]
        for ours, theirs in shared:
            names = _names(splits[first], ours), _names(splits[second], theirs)
            identical.append(Identical((first, second), *names))
        num_near, named = _near_pairs(splits[first], splits[second])
        num_near -= sum(len(ours) * len(theirs) for ours, theirs in shared if splits[first].perceptual[ours[0]])
        if num_near:
            near.append(Near((first, second), num_near, named))
    sizes = {split: len(images.keys) for split, images in splits.items()}
    conflicts = _conflicts(splits["train"], rows["train"].values(), class_names)
    return Leaks(sizes, tuple(identical), _spanning(splits), tuple(near), conflicts)


def _rows_of_pictures(images: Listed) -> dict[bytes, list[int]]:
    rows: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(images.digests):
        rows[digest.tobytes()].append(row)
    return dict(rows)


def _names(images: Listed, rows: Sequence[int]) -> tuple[str, ...]:
    return tuple(images.keys[row] for row in rows)


def _conflicts(train: Listed, pictures: Iterable[list[int]], class_names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(f"{train.keys[row]} ({class_names[train.labels[row]]})" for row in copies)
        for copies in pictures
        if len(set(train.labels[copies].tolist())) > 1
    )


def _spanning(splits: Mapping[Split, Listed]) -> tuple[Spanning, ...]:
    counts = {split: Counter(images.groups) for split, images in splits.items()}
    homes: dict[str, dict[Split, int]] = defaultdict(dict)
    for split, of_split in counts.items():
        for group, num in of_split.items():
            homes[group][split] = num
    return tuple(Spanning(group, homes[group]) for group in sorted(homes) if len(homes[group]) > 1)


# --- near duplicates --------------------------------------------------------------------------------------------


FLIPS = np.array(
    [sum(1 << bit for bit in bits) for num in range(NEAR_BITS + 1) for bits in combinations(range(64), num)], np.uint64
)
"""What a hash is combined with, by exclusive or, to give every hash near to it; itself first."""


def _near_pairs(first: Listed, second: Listed) -> tuple[int, tuple[tuple[str, str], ...]]:
    """How many pairs of images have near hashes, identical images among them, and the names of some that are not.

    Every hash near to one of the first split is looked up among those of the second, so no two images are compared.
    """
    ours, theirs = _ByHash.of(first), _ByHash.of(second)
    if not len(theirs.hashes):
        return 0, ()
    num_pairs = 0
    named: list[tuple[str, str]] = []
    for flip in FLIPS:
        wanted = ours.hashes ^ flip
        at = np.searchsorted(theirs.hashes, wanted).clip(max=len(theirs.hashes) - 1)
        hits = np.flatnonzero(theirs.hashes[at] == wanted)
        num_pairs += int(ours.num_images[hits] @ theirs.num_images[at[hits]])
        rows = chain.from_iterable(product(ours.rows(i), theirs.rows(j)) for i, j in zip(hits, at[hits], strict=True))
        named += islice(_names_of_unlike(first, second, rows), LISTED - len(named))
    return num_pairs, tuple(named)


def _names_of_unlike(first: Listed, second: Listed, rows: Iterator[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    for one, other in rows:
        if not np.array_equal(first.digests[one], second.digests[other]):
            yield first.keys[one], second.keys[other]


@dataclass(frozen=True)
class _ByHash:
    """The images of a split by difference hash, but for those whose hash says nothing.

    Attributes:
        hashes: uint64 (U,), ascending.
        num_images: int64 (U,), images with each hash.
        starts: int64 (U + 1,): those of hash i are `pictures[starts[i]:starts[i + 1]]`.
        pictures: int64 (P,), rows, one of each picture, so that copies of one do not make a pair over and over.
    """

    hashes: NDArray[np.uint64]
    num_images: NDArray[np.int64]
    starts: NDArray[np.int64]
    pictures: NDArray[np.int64]

    @classmethod
    def of(cls, images: Listed) -> _ByHash:
        """From a split in content order, where copies are neighbours."""
        hashes, num_images = np.unique(images.perceptual[images.perceptual != 0], return_counts=True)
        is_first = np.ones(len(images.keys), bool)
        is_first[1:] = (images.digests[1:] != images.digests[:-1]).any(axis=1)
        pictures = np.flatnonzero(is_first & (images.perceptual != 0))
        pictures = pictures[np.argsort(images.perceptual[pictures], kind="stable")]
        starts = np.searchsorted(images.perceptual[pictures], hashes)
        return cls(hashes, num_images, np.append(starts, len(pictures)), pictures)

    def rows(self, at: np.integer) -> list[int]:
        """Rows of the pictures with one hash."""
        found: list[int] = self.pictures[self.starts[at] : self.starts[at + 1]].tolist()
        return found
