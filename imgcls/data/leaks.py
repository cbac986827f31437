"""What splits share that they should not, found from hashes, labels and names alone.

Identical images and groups in several splits are leaks. Near duplicates may be. Images of one split that are identical,
or look alike, and disagree on their class are not a leak, but worth a look.
"""

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from imgcls.data import cache_folder
from imgcls.data.copies import copies
from imgcls.data.image_set import HashedImages, Split
from imgcls.data.image_warnings import log
from imgcls.data.sketches import says_something
from imgcls.errors import DataError
from imgcls.record import Artifact
from imgcls.text import listed

FORMAT = "5"
"""Version in the key of kept findings: raise it when the search finds other things."""

SHOWN = 10
"""Number of pairs that each figure shows."""

NAMED = 3
"""Number of pairs that the warning names; the artifact names all."""

ONE_LABEL = "imgcls has one label an image, so keep each in one class, or give images of both a class of their own"
"""What to do about one image in two classes."""


@dataclass(frozen=True)
class Identical:
    """A leak: one picture that stands in two splits, pixel by pixel, with its names in both of them."""

    splits: tuple[Split, Split]
    first: tuple[str, ...]
    second: tuple[str, ...]


@dataclass(frozen=True)
class Near:
    """Possible leaks: near duplicates in two splits, as names of pairs whose pixels differ, each picture once."""

    splits: tuple[Split, Split]
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Disagreeing:
    """Not leaks, but found beside them: near duplicates in one split whose classes differ, with these classes."""

    split: Split
    pairs: tuple[tuple[str, str], ...]
    classes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Spanning:
    """A leak: a group that stands in several splits, and how many of its images are in each."""

    group: str
    num_images: dict[Split, int]


@dataclass(frozen=True)
class Leaks:
    """The leaks and near duplicates that were found in a data set.

    Attributes:
        num_images: of each split.
        identical: pictures that stand in two splits.
        spanning: groups that stand in several splits.
        near: near duplicates, for each two splits that have some.
        conflicts: split -> names and classes of images with the same pixels and different classes, a tuple for each
            picture; only splits that have some.
        num_not_compared: val and test images that are too plain for anything to look like them.
        disagreeing: images that look alike and have different classes, for each split that has some.
    """

    num_images: dict[Split, int]
    identical: tuple[Identical, ...] = ()
    spanning: tuple[Spanning, ...] = ()
    near: tuple[Near, ...] = ()
    conflicts: dict[Split, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    num_not_compared: int = 0
    disagreeing: tuple[Disagreeing, ...] = ()

    @property
    def num_near_leaked(self) -> int | None:
        """Val and test images that look like an image of another split; None where none of them can be compared."""
        others = sum(num for split, num in self.num_images.items() if split != "train")  # 0 with folds and no test
        if others and self.num_not_compared == others:
            return None
        alike = {(near.splits[at], pair[at]) for near in self.near for pair in near.pairs for at in (0, 1)}
        return sum(split != "train" for split, _ in alike)

    @property
    def num_leaked(self) -> int:
        """Test images whose pixels stand in train or val too."""
        return self._num_known("test")

    @property
    def summary(self) -> str:
        """One line on what leaks; empty where nothing does. Near duplicates may be harmless, so they are not in it."""
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
        return next((near for near in self.near if near.splits == (first, second)), Near((first, second), ()))

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
    """Leaks of a data set stop it, or are warned of where they are allowed; near duplicates are warned of.

    Raises:
        DataError: leaks that are not allowed, each listed, by names that are relative to `origin`.
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
    for split, conflicts in leaks.conflicts.items():
        pictures = [" = ".join(names) for names in conflicts]
        log.warning("\n".join([f"identical {split} images have different classes; {ONE_LABEL}:", *listed(pictures)]))
    for alike in leaks.disagreeing:
        found = _found(alike.split, len(alike.pairs))
        headline = (
            f"different classes: {found} alike, but the two have different classes ({Artifact.NEAR_DUPLICATES} names "
            "each); where they are of one thing, one of the labels is wrong:"
        )
        named = [
            f"{one} ({of_one}) ~ {other} ({of_other})"
            for (one, other), (of_one, of_other) in zip(alike.pairs, alike.classes, strict=True)
        ]
        log.warning("\n".join([headline, *listed(named, most=NAMED)]))
    for near in leaks.near:
        pairs = [f"{one} ~ {other}" for one, other in near.pairs]
        found = _found(" and ".join(near.splits), len(pairs))
        headline = (
            f"near duplicates: {found} alike, which every score will say ({Artifact.NEAR_DUPLICATES} names each); "
            "where they are of one thing, data.groups keeps them together:"
        )
        log.warning("\n".join([headline, *listed(pairs, most=NAMED)]))


def _found(splits: str, num: int) -> str:
    return f"1 pair of {splits} images looks" if num == 1 else f"{num} pairs of {splits} images look"


def near_duplicates_csv(leaks: Leaks) -> str:
    """Leaks as CSV, the near duplicates: every pair by name, with header `split,image,other_split,other_image`.

    Those of two splits come first, then those of one split and two classes.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("split", "image", "other_split", "other_image"))
    for near in leaks.near:
        rows.writerows((near.splits[0], one, near.splits[1], other) for one, other in near.pairs)
    for alike in leaks.disagreeing:
        rows.writerows((alike.split, one, alike.split, other) for one, other in alike.pairs)
    return text.getvalue()


# --- the search -------------------------------------------------------------------------------------------------


def find_leaks(splits: Mapping[Split, HashedImages], class_names: Sequence[str]) -> Leaks:
    """Finds the leaks of a data set, or reads what an earlier search of the same images left in the cache folder.

    The splits that there are stand in the order train, val, test.
    """
    ordered = {split: images.in_content_order() for split, images in splits.items()}
    text = cache_folder.remember(
        f"leaks-{_key(ordered, class_names)}.json", lambda: _LEAKS.dump_json(_search(ordered, class_names)).decode()
    )
    return _LEAKS.validate_json(text)


_LEAKS = TypeAdapter(Leaks)


def _key(splits: Mapping[Split, HashedImages], class_names: Sequence[str]) -> str:
    """Names everything that the findings depend on."""
    hasher = hashlib.sha256(repr((FORMAT, tuple(class_names))).encode())
    for split, images in splits.items():
        hasher.update(repr((split, images.keys, images.groups)).encode())
        for array in (images.labels, images.digests, images.sketches):
            hasher.update(array.tobytes())
    return hasher.hexdigest()[:32]


def _search(splits: Mapping[Split, HashedImages], class_names: Sequence[str]) -> Leaks:
    identical: list[Identical] = []
    near: list[Near] = []
    rows = {split: _rows_of_pictures(images) for split, images in splits.items()}
    for first, second in combinations(splits, 2):
        shared = [(rows[first][picture], rows[second][picture]) for picture in rows[first] if picture in rows[second]]
        for ours, theirs in shared:
            names = _names(splits[first], ours), _names(splits[second], theirs)
            identical.append(Identical((first, second), *names))
        if pairs := _near_pairs(splits[first], splits[second]):
            near.append(Near((first, second), pairs))
    sizes = {split: len(images) for split, images in splits.items()}
    conflicts = {split: _conflicts(images, rows[split].values(), class_names) for split, images in splits.items()}
    plain = [np.count_nonzero(~says_something(images.sketches)) for split, images in splits.items() if split != "train"]
    return Leaks(
        sizes,
        tuple(identical),
        _spanning(splits),
        tuple(near),
        {split: found for split, found in conflicts.items() if found},
        int(sum(plain)),
        tuple(found for split, images in splits.items() if (found := _disagreeing(split, images, class_names)).pairs),
    )


def _rows_of_pictures(images: HashedImages) -> dict[bytes, list[int]]:
    rows: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(images.digests):
        rows[digest.tobytes()].append(row)
    return dict(rows)


def _names(images: HashedImages, rows: Sequence[int]) -> tuple[str, ...]:
    return tuple(images.keys[row] for row in rows)


def _conflicts(
    split: HashedImages, pictures: Iterable[list[int]], class_names: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(f"{split.keys[row]} ({class_names[split.labels[row]]})" for row in equal)
        for equal in pictures
        if len(set(split.labels[equal].tolist())) > 1
    )


def _spanning(splits: Mapping[Split, HashedImages]) -> tuple[Spanning, ...]:
    homes: dict[str, dict[Split, int]] = defaultdict(dict)
    for split, images in splits.items():
        for group, num in Counter(images.groups).items():
            homes[group][split] = num
    return tuple(Spanning(group, homes[group]) for group in sorted(homes) if len(homes[group]) > 1)


def _near_pairs(first: HashedImages, second: HashedImages) -> tuple[tuple[str, str], ...]:
    """Names of images that look alike; of identical pictures in one split, the first stands for all."""
    ours, theirs = _first_of_each_picture(first), _first_of_each_picture(second)
    pairs = copies(first.sketches[ours], second.sketches[theirs])
    of_first, of_second = ours[pairs[:, 0]], theirs[pairs[:, 1]]
    differs = (first.digests[of_first] != second.digests[of_second]).any(axis=1)
    return tuple(
        (first.keys[one], second.keys[other]) for one, other in zip(of_first[differs], of_second[differs], strict=True)
    )


def _disagreeing(split: Split, images: HashedImages, class_names: Sequence[str]) -> Disagreeing:
    """Of identical pictures of one class, the first stands for all."""
    rows = _first_of_each_picture(images, of_each_class=True)
    sketches, labels = images.sketches[rows], images.labels[rows]
    pairs = rows[np.unique(np.sort(copies(sketches, sketches, (labels, labels)), axis=1), axis=0)]
    pairs = pairs[(images.digests[pairs[:, 0]] != images.digests[pairs[:, 1]]).any(axis=1)]
    return Disagreeing(
        split,
        tuple((images.keys[one], images.keys[other]) for one, other in pairs),
        tuple((class_names[images.labels[one]], class_names[images.labels[other]]) for one, other in pairs),
    )


def _first_of_each_picture(images: HashedImages, *, of_each_class: bool = False) -> NDArray[np.int64]:
    """Rows of a split in content order, in which equal pictures are neighbours, sorted by class."""
    is_first = np.ones(len(images), bool)
    is_first[1:] = (images.digests[1:] != images.digests[:-1]).any(axis=1)
    if of_each_class:
        is_first[1:] |= images.labels[1:] != images.labels[:-1]
    return np.flatnonzero(is_first)
