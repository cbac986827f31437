"""The picture of the replay: regret against trial-seconds, a panel a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLOURS = ("#0072b2", "#d55e00", "#7f7f7f", "#009e73", "#cc79a7")
"""Of Okabe and Ito's palette, told apart by colour-blind readers too."""


def draw(results: Mapping[str, Mapping[str, Any]], methods: Sequence[str], path: Path) -> None:
    """Draws the mean regret of some methods with its standard error.

    Args:
        results: table -> method -> `seconds`, `regret` and `error` in the order of time, as RESULTS.json holds them.
        methods: those that are drawn.
        path: of the PNG.
    """
    figure, axes = plt.subplots(1, len(results), figsize=(4.2 * len(results), 3.6), squeeze=False)
    for panel, (table, found) in zip(axes[0], results.items(), strict=True):
        for colour, method in zip(COLOURS, methods, strict=False):
            seconds, mean, error = (np.array(found[method][key]) for key in ("seconds", "regret", "error"))
            panel.plot(seconds, 100 * mean, color=colour, label=method)
            panel.fill_between(
                seconds, 100 * (mean - error), 100 * (mean + error), color=colour, alpha=0.2, linewidth=0
            )
        panel.set(title=table, xlabel="seconds of training", yscale="log", ylabel="regret in percentage points")
        panel.grid(alpha=0.3, which="both")
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
