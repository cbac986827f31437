"""What was found in a folder of images: rows of words for people, flat facts for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from imgcls.data.sources.folder import ignored_in_words
from imgcls.errors import unreadable_in_words
from imgcls.init.choices import UNEVEN, is_uneven
from imgcls.init.look import Look
from imgcls.text import counted

LEAST_TO_JUDGE = 5
"""Val images of a class below which val says little about it."""

MOST_CLASSES, MOST_SIZES, MOST_NAMES = 12, 3, 3
"""Number of classes, of sizes and of names that a row tells."""


def findings(look: Look) -> list[tuple[str, str]]:
    """The findings as rows of (what, words)."""
    return [(what, words) for what, words in _rows(look) if words]


def _rows(look: Look) -> Iterator[tuple[str, str]]:
    found, dataset = look.found, look.dataset
    folders = found.source.folders.values()
    layout = f"{', '.join(folders)} with a folder per class" if folders else "one folder per class"
    yield "Images", f"{found.num_all:,} in {layout}{_sample(look)}"
    yield "Classes", _classes(look)
    yield "Splits", _splits(look)
    headers, sizes = found.headers, Counter(map(tuple, found.headers.sizes.tolist()))
    of = "" if headers.num_files == found.num_all else f" (of {headers.num_files:,} files)"
    yield "Val", _val(look)
    yield "Files", f"{_counts(headers.formats)}; modes {_counts(headers.modes)}{of}"
    common = ", ".join(f"{w} x {h} ({num:,})" for (w, h), num in sizes.most_common(MOST_SIZES))
    others = f", and {len(sizes) - MOST_SIZES:,} other sizes" if len(sizes) > MOST_SIZES else ""
    yield "Sizes", f"{common}{others}; median of the shorter side {headers.shorter_side}"
    yield "Colour", "none: every train image is grey" if look.are_grey else ""
    yield "Not images", ignored_in_words(dataset.ignored)
    yield "A table", look.found.other_labels
    yield "Unreadable", _unreadable(look)
    if several := dataset.num_several_frames:
        yield "Several frames", f"in {counted(several, 'file')}, of which the first frame or page is used"
    yield "Duplicates", _duplicates(look)
    yield "Conflicting labels", _conflicting(look)
    yield "Leaks", dataset.leaks.summary
    yield "Look alike", _alike(look)
    counts = look.train_counts
    if is_uneven(look):
        ratio = f"{_about(look)}{counts.max() / counts.min():.1f}"
        times = f"the largest class has {ratio} times the train images of the smallest"
        yield "Uneven", f"{times} (at a ratio of {UNEVEN:g} or more, rare classes get larger weights)"
    if groups := found.groups:
        such = f"names suggest {groups.num_groups:,} groups, such as {groups.example[0]!r}"
        yield "Groups?", f"{such}; see data.groups in the file"


def _sample(look: Look) -> str:
    return f"; {look.num_decoded:,} of them were decoded, a sample" if look.is_sample else ""


def _about(look: Look) -> str:
    return "about " if look.is_sample else ""


def _classes(look: Look) -> str:
    counts, names = look.found.counts, look.found.source.class_names
    order = np.argsort(-counts, kind="stable").tolist()
    words = [f"{names[row]} {counts[row]:,}" for row in order]
    if len(words) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        words = [*words[:half], "…", *words[-half:]]
    return f"{len(names)}: {', '.join(words)}"


def _splits(look: Look) -> str:
    dataset, about = look.dataset, _about(look)
    nums = {"train": look.num_train, "val": look.num_val, **_num_test(look)}
    origins = dict(dataset.origins)
    words = [
        f"{about}{num:,} {split}" + (f" ({origins[split]})" if split in origins else "") for split, num in nums.items()
    ]
    return ", ".join(words) + ("" if "test" in nums else ", no test")


def _num_test(look: Look) -> dict[str, int]:
    if look.dataset.test is None:
        return {}
    if not look.is_sample:
        return {"test": len(look.dataset.test)}
    given = look.found.source.given
    return {"test": len(given["test"]) if given else look.found.num_all - look.num_train - look.num_val}


def _counts(of: Counter[str]) -> str:
    return ", ".join(f"{name} {num:,}" for name, num in of.most_common()) or "none that can be read"


def unreadable_files(look: Look) -> list[tuple[str, str]]:
    """Findings: path in the folder and reason of each image that cannot be read."""
    roots = {f"{table.origin.rstrip('/')}/" for table in look.found.tables}
    files = []
    for offender in look.unreadable:
        root = next((root for root in roots if offender.startswith(root)), "")
        path, _, reason = offender.removeprefix(root).partition(": ")
        files.append((path, reason))
    return files


def _unreadable(look: Look) -> str:
    files = unreadable_files(look)
    if not files:
        return ""
    named = ", ".join(path for path, _ in files[:MOST_NAMES])
    more = f" and {len(files) - MOST_NAMES:,} more; the page has the reasons" if len(files) > MOST_NAMES else ""
    return f"{unreadable_in_words(list(look.unreadable))}: {named}{more}"


def val_counts(look: Look) -> NDArray[np.int64]:
    """Findings: int64 (K,), val images of each class; about, where a sample was decoded."""
    num_classes = len(look.dataset.class_names)
    if not look.is_sample:
        return np.bincount(look.dataset.val.labels, minlength=num_classes)
    if "val" in look.found.source.given:
        return np.bincount(look.found.source.given["val"].labels, minlength=num_classes)
    return np.rint(look.train_counts * look.num_val / look.num_train).astype(np.int64)


def _val(look: Look) -> str:
    counts = val_counts(look)
    num_none, num_few = int((counts == 0).sum()), int(((counts > 0) & (counts < LEAST_TO_JUDGE)).sum())
    if not num_none + num_few:
        return ""
    parts = [f"{num_none:,} of {len(counts):,} classes {_have(num_none)} no val image"] if num_none else []
    parts += [f"{num_few:,} of {len(counts):,} classes {_have(num_few)} fewer than {LEAST_TO_JUDGE}"] if num_few else []
    larger = " to val" if "val" in look.found.source.given else ", or set a larger data.val_fraction"
    return f"{_about(look)}{'; '.join(parts)}, so that val cannot judge these classes. Add images{larger}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def same_pixels(look: Look) -> list[list[str]]:
    """Findings: names of train images that have the same pixels, each picture once."""
    train = look.dataset.train
    names: dict[bytes, list[str]] = {}
    for key, digest in zip(train.keys, train.digests, strict=True):
        names.setdefault(digest.tobytes(), []).append(key)
    return [keys for keys in names.values() if len(keys) > 1]


def _duplicates(look: Look) -> str:
    same = same_pixels(look)
    extra = counted(sum(len(keys) - 1 for keys in same), "train image")
    return f"{extra} with the pixels of another one, such as {' = '.join(same[0][:2])}" if same else ""


def _conflicting(look: Look) -> str:
    leaks = look.dataset.leaks
    num = sum(len(pictures) for split, pictures in leaks.conflicts.items() if split != "test")
    num += sum(len(alike.pairs) for alike in leaks.disagreeing if alike.split != "test")
    return f"{counted(num, 'picture')} of train or val in two classes, with the same pixels or nearly" if num else ""


def _alike(look: Look) -> str:
    pairs = [f"{counted(len(near.pairs), 'pair')} of {' and '.join(near.splits)}" for near in look.dataset.leaks.near]
    return f"{', '.join(pairs)}; where they are of one thing, data.groups keeps them together" if pairs else ""


def flat(look: Look) -> dict[str, object]:
    """The findings as flat facts for programs."""
    headers, counts, train = look.found.headers, look.found.counts, look.train_counts
    return {
        "num_images": look.found.num_all,
        "num_decoded": look.num_decoded,
        "num_classes": len(look.found.source.class_names),
        "smallest_class": int(counts.min()),
        "largest_class": int(counts.max()),
        "layout": "split" if look.found.source.given else "class",
        "num_train": look.num_train,
        "num_val": look.num_val,
        "num_test": _num_test(look).get("test", 0),
        "median_shorter_side": headers.shorter_side,
        "is_grey": look.are_grey,
        "is_uneven": is_uneven(look),
        "smallest_train_class": int(train.min()),
        "num_classes_without_val": int((val_counts(look) == 0).sum()),
        "num_ignored": sum(look.dataset.ignored.values()),
        "num_unreadable": len(look.unreadable),
        "num_duplicates": sum(len(keys) - 1 for keys in same_pixels(look)),
        "leaks": look.dataset.leaks.summary,
        "num_near_pairs": sum(len(near.pairs) for near in look.dataset.leaks.near),
        "suggested_groups": look.found.groups.expression if look.found.groups else "",
    }
