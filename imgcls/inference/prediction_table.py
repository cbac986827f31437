"""A table of predictions as CSV and flat objects for programs, and as text for people."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PROB = "prob/"
"""How the columns of the classes' probabilities begin."""


def prediction_columns(probs: NDArray[np.float64], class_names: tuple[str, ...], top: int) -> dict[str, NDArray[Any]]:
    """Columns of a table of predictions, besides the images' names.

    Args:
        probs: float64 (N, K).
        class_names: K names.
        top: how many of the most probable classes get columns of their own.

    Returns:
        `prediction`, `prob/CLASS` of each class, and `class_1`, `prob_1`, `class_2` ... as far as `top` asks.
    """
    names, order = np.array(class_names, object), np.argsort(-probs, axis=1, kind="stable")
    columns: dict[str, NDArray[Any]] = {"prediction": names[probs.argmax(axis=1)]}
    columns |= {f"{PROB}{name}": probs[:, i] for i, name in enumerate(class_names)}
    for place in range(top):
        chosen = order[:, place]
        columns |= {f"class_{place + 1}": names[chosen], f"prob_{place + 1}": probs[np.arange(len(probs)), chosen]}
    return columns


def as_csv(table: pd.DataFrame) -> str:
    """The table of predictions as CSV with its header; every probability with all its digits."""
    return table.to_csv(index=False, lineterminator="\n")


def as_facts(table: pd.DataFrame) -> list[dict[str, object]]:
    """The table of predictions as flat objects, one a row."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def as_text(table: pd.DataFrame, top: int = 1) -> str:
    """The table of predictions for people: the image and its `top` most probable classes, the most probable first."""
    of_classes = [name for name in table.columns if name.startswith(PROB)]
    names = tuple(_in_one_line(name.removeprefix(PROB)) for name in of_classes)
    ranked = prediction_columns(table[of_classes].to_numpy(np.float64), names, top)
    columns = [["image", *map(_in_one_line, table["image"])]]
    for place in range(1, top + 1):
        which = "" if place == 1 else f" {place}"
        columns.append([f"class{which}", *ranked[f"class_{place}"]])
        columns.append([f"probability{which}", *(f"{prob:.4f}" for prob in ranked[f"prob_{place}"])])
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _in_one_line(name: str) -> str:
    return name.replace("\n", "\\n").replace("\t", "\\t")
