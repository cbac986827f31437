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

NUMBER = r"[-_ ]?\d+"
"""Expression of the number after such a word."""

BEGINNING = r"[^/]*?\d+(?=(?:[-_ .][^/]*)?\.[^./]+$)"
"""Expression of the beginning of a name through its first number that ends a part of it (`IMG_2041` of
`IMG_2041_burst02.jpg`)."""

FOLDER = r"([^/]+)/[^/]+$"
"""The folder that directly holds the image, where it lies below its class."""

LEAST_NAMED = 0.9
"""Share of the images that an expression has to name a group of, so that it is worth a question."""

LEAST_GROUPS = 3
"""Number of groups below which splits cannot be told apart by them."""

LARGEST_SHARE = 0.25
"""Largest share of all images that one group may hold, since whole groups have to fill val and test."""


@dataclass(frozen=True)
class SuggestedGroups:
    """Groups that names suggest.

    Attributes:
        expression: for `data.groups`; it gives each image without a group one of its own.
        num_groups: groups of several images.
        largest: images of the largest.
        num_alone: images whose names have no group.
        example: a group with several images, and the names of two of them.
    """

    expression: str
    num_groups: int
    largest: int
    num_alone: int
    example: tuple[str, str, str]


def suggested_groups(keys: Sequence[str], labels: Sequence[int], num_folders: int) -> SuggestedGroups | None:
    """Groups that the names suggest; None where they suggest none.

    Tried in this order: a word and its number, the folder below the class, the beginning of the name. Names often begin
    with the same number in every class, so those count only where several images of one class folder have them.

    Args:
        keys: paths of the images, relative to the folder.
        labels: their classes.
        num_folders: in a key above its file: 1 of CLASS/IMAGE, 2 of SPLIT/CLASS/IMAGE.
    """
    everywhere, folders = [""] * len(keys), ["/".join(key.split("/")[:num_folders]) for key in keys]
    is_nested = all(key.count("/") > num_folders for key in keys)
    below = [(FOLDER, everywhere)] if is_nested else []
    kinds = [(f"({_words_in(keys)})", everywhere), *below, (f"({BEGINNING})", folders)]
    for expression, within in kinds:
        names = [match[1] if (match := re.search(expression, key)) else "" for key in keys]
        if suggested := _if_sound(expression, names, keys, labels, within):
            return suggested
    return None


def _words_in(keys: Sequence[str]) -> str:
    """Expression of a thing and its number, anywhere in a path; of the things, those that these paths name."""
    matches = (re.search(f"(?i:({THINGS})){NUMBER}", key) for key in keys)
    words = sorted({match[1].lower() for match in matches if match})
    return f"(?i:{'|'.join(words) or THINGS}){NUMBER}"


def _if_sound(
    expression: str, names: Sequence[str], keys: Sequence[str], labels: Sequence[int], within: Sequence[str]
) -> SuggestedGroups | None:
    """Refuses what numbers the images of a class, what names the class again, and groups of one image."""
    sizes, num_alone = Counter(filter(None, names)), names.count("")
    places = Counter(zip(names, within, strict=True))
    several = {name for (name, _), num in places.items() if name and num > 1}
    if len(several) < LEAST_GROUPS or num_alone > (1 - LEAST_NAMED) * len(keys):
        return None
    classes = defaultdict(set)
    for name, label in zip(names, labels, strict=True):
        classes[name].add(label)
    names_classes = len(sizes) <= len(set(labels)) and all(len(classes[name]) == 1 for name in sizes)
    num_in_groups = sum(sizes[name] for name in several)
    if names_classes or 2 * num_in_groups < len(keys) or max(sizes.values()) > LARGEST_SHARE * len(keys):
        return None
    largest = max(several, key=lambda name: (sizes[name], name))
    place = max((place for place in places if place[0] == largest), key=lambda place: places[place])
    first, second = [key for key, *of in zip(keys, names, within, strict=True) if tuple(of) == place][:2]
    written = _with_those_alone(expression) if num_alone else expression
    return SuggestedGroups(written, len(several), sizes[largest], num_alone, (largest, first, second))


def _with_those_alone(expression: str) -> str:
    """Expression that takes the whole path where nothing else matches: `data.groups` needs a group of every image."""
    group = expression[1:-1]
    return f"({group}|^(?!.*{group}).+)"
