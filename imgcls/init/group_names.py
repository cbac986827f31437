"""Names of image files that suggest groups: patients, bursts, sessions, several images of one thing."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

THINGS = (
    "patient|subject|participant|person|case|animal|specimen|lesion|slide|scan|series|burst|session|sequence|video|clip"
    "|scene|visit|module|panel"
)
"""Words before a number that name what several images are of."""

EXPRESSIONS = (
    rf"(?i)((?:{THINGS})[-_ ]?\d+)",
    r"([^/]*?\d+)(?:[-_ .][^/]*)?\.[^./]+$",
)
"""Expressions for `data.groups`, in the order in which they are tried: such a word and its number anywhere in the path;
the beginning of a name through its first number that ends a part of it (`IMG_2041` of `IMG_2041_burst02.jpg`)."""

FOLDER = r"([^/]+)/[^/]+$"
"""The folder that directly holds the image, where it lies below its class."""

LEAST_GROUPS = 3
"""Number of groups below which splits cannot be told apart by them."""

LARGEST_SHARE = 0.25
"""Largest share of all images that one group may hold, since whole groups have to fill val and test."""


@dataclass(frozen=True)
class SuggestedGroups:
    """Groups that names suggest.

    Attributes:
        expression: for `data.groups`.
        num_groups: how many there are.
        largest: images of the largest.
        example: a group with several images, and the names of two of them.
    """

    expression: str
    num_groups: int
    largest: int
    example: tuple[str, str, str]


def suggested_groups(keys: Sequence[str], labels: Sequence[int], num_folders: int) -> SuggestedGroups | None:
    """Groups that the names suggest; None where they suggest none.

    Args:
        keys: paths of the images, relative to the folder.
        labels: their classes.
        num_folders: in a key above its file: 1 of CLASS/IMAGE, 2 of SPLIT/CLASS/IMAGE.
    """
    is_nested = all(key.count("/") > num_folders for key in keys)
    for expression in (*EXPRESSIONS[:1], *([FOLDER] if is_nested else []), *EXPRESSIONS[1:]):
        found = [match[1] if (match := re.search(expression, key)) else "" for key in keys]
        if all(found) and (suggested := _if_sound(expression, found, keys, labels)):
            return suggested
    return None


def _if_sound(
    expression: str, names: Sequence[str], keys: Sequence[str], labels: Sequence[int]
) -> SuggestedGroups | None:
    """Refuses what numbers the images of a class, what names the class again, and groups of one image."""
    sizes = Counter(names)
    classes = defaultdict(set)
    for name, label in zip(names, labels, strict=True):
        classes[name].add(label)
    num_in_groups = sum(size for size in sizes.values() if size > 1)
    names_classes = len(sizes) <= len(set(labels)) and all(len(of) == 1 for of in classes.values())
    largest, size = sizes.most_common(1)[0]
    if len(sizes) < LEAST_GROUPS or names_classes or 2 * num_in_groups < len(keys) or size > LARGEST_SHARE * len(keys):
        return None
    first, second = [key for key, name in zip(keys, names, strict=True) if name == largest][:2]
    return SuggestedGroups(expression, len(sizes), size, (largest, first, second))
