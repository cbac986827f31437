"""Whether a run may take the place of a champion: their accuracies on the same val images, paired image by image."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from imgcls.errors import InputError
from imgcls.evaluation.compare import Pair, hits_by_image, paired
from imgcls.record import Artifact
from imgcls.reporting.rounding import ends
from imgcls.run_record import RunRecord
from imgcls.text import counted
from imgcls.tracking.registry import Version
from imgcls.tracking.store import Tracker

SIGNIFICANCE = 0.05
"""The p-value below which a difference counts."""


@dataclass(frozen=True)
class Verdict:
    """Result of a challenge of a champion.

    Attributes:
        wins: whether the run may take the champion's place.
        words: the numbers, or why the two runs cannot be compared.
    """

    wins: bool
    words: str


def challenge(run: RunRecord, champion: Version, tracker: Tracker) -> Verdict:
    """Challenges a champion with a run: the interval of the paired difference must lie above zero, and p below 0.05."""
    if not champion.run_id:
        return Verdict(False, f"version {champion.number} of {champion.name} names no run to compare with")
    try:
        holder = tracker.get(champion.run_id)
        own, other = (
            hits_by_image(one, Artifact.VAL_PREDICTIONS, tracker, has_groups=one.has_groups) for one in (run, holder)
        )
    except InputError as error:
        return Verdict(False, str(error))
    if len(alone := own.index.symmetric_difference(other.index)):
        return Verdict(
            False,
            f"run {run.run_id} and the champion's run {holder.run_id} have different val images or labels: "
            f"{len(alone)} of their {len(own)} and {len(other)} have no counterpart, so they cannot be paired",
        )
    return _paired_verdict(own, other, holder)


def _paired_verdict(own: pd.DataFrame, other: pd.DataFrame, holder: RunRecord) -> Verdict:
    named = next((table["group"] for table in (own, other) if table["group"].any()), None)
    groups = () if named is None else tuple(named)
    pair = paired(1, 2, own["hit"].to_numpy(bool), other["hit"].to_numpy(bool), groups)
    wins = pair.interval is not None and pair.interval.low > 0 and pair.p_value < SIGNIFICANCE
    return Verdict(wins, _in_words(pair, len(own), len(set(groups)), holder))


def _in_words(pair: Pair, num_images: int, num_groups: int, holder: RunRecord) -> str:
    of_groups = f" in {num_groups} groups" if num_groups else ""
    accuracies = [(pair.both + alone) / num_images for alone in (pair.only_first, pair.only_second)]
    interval = "too few groups for an interval" if pair.interval is None else f"95% interval {ends(pair.interval)}"
    test = "sign changes of whole groups" if num_groups else "exact McNemar test"
    return (
        f"accuracy {accuracies[0]:.4f} against {accuracies[1]:.4f} of the champion's run {holder.run_id} on the same "
        f"{num_images} val images{of_groups}: difference {pair.difference:+.4f}, {interval}; {test}, p = "
        f"{pair.p_value:.2g} ({counted(pair.only_first, 'image')} only this run has right, {pair.only_second} only the "
        "champion)"
    )
