"""The warm start of a sweep: the best configurations of an earlier sweep, as far as they fit the new search space."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Self

from imgcls.data.splits import Dataset
from imgcls.errors import ConfigError, ImgclsError, InputError
from imgcls.evaluation.selection import Trials
from imgcls.record import Artifact, Tag
from imgcls.run_record import RunRecord
from imgcls.runs.prepare import Prepared
from imgcls.runs.rebuild import recorded_experiment
from imgcls.runs.val_predictions import recorded_predictions
from imgcls.search.space import Space, Values, known, own_values, value_of
from imgcls.text import counted
from imgcls.tracking.find_run import find_run
from imgcls.tracking.recorded_looks import names_of
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker

log = logging.getLogger(__name__)

NUM_CONFIGURATIONS = 3
"""Number of an earlier sweep's best configurations with which a new one starts, after the experiment's own values."""

NUM_LOOKED_THROUGH = 10
"""Most earlier sweeps of each kind that are looked through, the newest, since a store may hold thousands."""


@dataclass(frozen=True)
class WarmStart:
    """A warm start as a sweep records it when it begins: later sittings read it and do not look again.

    Attributes:
        sweep: run id of the earlier sweep.
        metric: by which its trials are ordered, its own.
        trials: their numbers, the best first.
        values: what each of them gives the new trials, dotted key -> value.
        num_earlier: trials of the earlier sweep, and of those that it started from; 0 where its val images are others.
        num_shared_val: val images of the new sweep that were val images of the earlier one.
        num_val: val images of the new sweep.
        num_unsealed: its test images that the earlier sweep did not seal, so that it may have trained on them; 0 where
            the two have no image in common.
    """

    sweep: str
    metric: str
    trials: tuple[int, ...]
    values: tuple[Values, ...]
    num_earlier: int
    num_shared_val: int
    num_val: int
    num_unsealed: int

    @classmethod
    def recorded(cls, run_id: str, tracker: Tracker) -> Self | None:
        """The one with which a sweep began; None where it began without."""
        if not tracker.has_artifact(run_id, Artifact.WARM_START):
            return None
        read = json.loads(tracker.read_text(run_id, Artifact.WARM_START))
        return cls(**read | {"trials": tuple(read["trials"]), "values": tuple(read["values"])})

    def record(self, run: Run) -> None:
        """Writes it into the record of the sweep that begins."""
        run.log_text(Artifact.WARM_START, json.dumps(asdict(self), indent=1))
        run.set_tags({
            Tag.WARM_START_RUN_ID: self.sweep,
            Tag.WARM_START_TRIALS: ",".join(map(str, self.trials)),
            Tag.NUM_EARLIER_TRIALS: str(self.num_earlier),
        })  # fmt: skip

    def in_words(self) -> Iterator[str]:
        """Sentences on where the first trials come from, and on what that means for the scores."""
        num, theirs = len(self.trials), ", ".join(map(str, self.trials))
        first = "Trial 1 has the best configuration" if num == 1 else f"Trials 1 to {num} have the best configurations"
        yield (
            f"{first} of the earlier sweep `{self.sweep}` that {'fits' if num == 1 else 'fit'} this search space (its "
            f"trial{'' if num == 1 else 's'} {theirs}, by its own metric, {self.metric})."
        )
        if not self.num_shared_val:
            yield "Its val images were others, so its trials are not counted among those that val chose from."
        else:
            same = "the same" if self.num_shared_val == self.num_val else f"{self.num_shared_val} of the same"
            yield (
                f"It compared {counted(self.num_earlier, 'trial')} on {same} val images, so these count among those "
                "that val chose from."
            )
        if self.num_unsealed:
            yield (
                f"{counted(self.num_unsealed, 'test image')} of this sweep did not belong to the test split of that "
                "one. Whether it trained on them is not recorded."
            )


def find_warm_start(prepared: Prepared, study: str, tracker: Tracker) -> WarmStart | None:
    """Finds the earlier sweep that `search.warm_start` asks for, and what fits of it; None where none is asked for.

    Where none is asked for and one would fit, that is logged together with the override that asks for it.

    Args:
        prepared: the experiment of the new sweep.
        study: its name.
        tracker: the record.

    Raises:
        InputError: the sweep that is named does not fit, or is not a sweep.
    """
    search = prepared.experiment.search
    asked = search.warm_start
    if search.sampler == "grid":
        if asked != "off":
            raise ConfigError(
                f'search.warm_start = "{asked}": a grid tries every combination, so it starts from none; set '
                'search.warm_start = "off", or another search.sampler'
            )
        return None
    if asked not in ("off", "auto"):
        return start_from(find_run(asked, tracker), prepared, tracker)
    found = _first_that_fits(prepared, study, tracker, is_asked=asked == "auto")
    if found is not None and asked == "off":
        log.info(
            "the earlier sweep %s fits; a sweep that starts from its best configurations: --set "
            "search.warm_start=auto", found.sweep,
        )  # fmt: skip
        return None
    if found is None and asked == "auto":
        log.info('search.warm_start = "auto": no earlier sweep of this experiment or of these images fits')
    return found


def _first_that_fits(prepared: Prepared, study: str, tracker: Tracker, *, is_asked: bool) -> WarmStart | None:
    for sweep in _earlier_sweeps(prepared, study, tracker):
        try:
            return start_from(sweep, prepared, tracker)
        except (ImgclsError, KeyError) as error:  # such as a record of which files or scores are gone
            if is_asked:
                log.info("%s", error)
    return None


def _earlier_sweeps(prepared: Prepared, study: str, tracker: Tracker) -> list[RunRecord]:
    """Those of the same images come first, then those of the same experiment, the newest first."""
    name, fingerprint = prepared.experiment.name, prepared.dataset.fingerprint
    newest = [
        *tracker.find({Tag.KIND: "sweep", Tag.DATA_FINGERPRINT: fingerprint}, newest=NUM_LOOKED_THROUGH),
        *tracker.find({Tag.KIND: "sweep"}, experiment=name, newest=NUM_LOOKED_THROUGH),
    ]
    others = {sweep.run_id: sweep for sweep in newest if sweep.study != study}

    def nearness(sweep: RunRecord) -> tuple[bool, bool, int]:
        return sweep.fingerprint == fingerprint, sweep.experiment == name, sweep.started

    return sorted(others.values(), key=nearness, reverse=True)


def start_from(sweep: RunRecord, prepared: Prepared, tracker: Tracker) -> WarmStart:
    """A warm start from one earlier sweep.

    Raises:
        InputError: it is not a sweep, nothing of it fits, or what it found was chosen by images that are now test
            images.
    """
    if sweep.kind != "sweep":
        of_sweep = f"; its sweep is {sweep.parent}" if sweep.kind in ("trial", "confirm") else ""
        raise InputError(
            f"search.warm_start: run {sweep.run_id} is of kind {sweep.kind or 'unknown'}, not a sweep{of_sweep}; name "
            'a sweep, "auto" or "off"'
        )
    trials = Trials.of_sweep(sweep, sweep.metric, tracker)
    if not trials.ranked:
        raise _does_not_fit(sweep, "none of its trials was completed")
    num_shared_val, num_unsealed = _shared_images(sweep, next(iter(trials.ranked)), prepared.dataset, tracker)
    found = _configurations(sweep, trials, prepared, tracker)
    if not found:
        raise _does_not_fit(
            sweep, "none of its configurations has a value that lies in this search space and differs from the "
            "experiment's own",
        )  # fmt: skip
    return WarmStart(
        sweep.run_id, sweep.metric, tuple(found), tuple(found.values()),
        num_earlier=trials.num + sweep.num_earlier_trials if num_shared_val else 0,
        num_shared_val=num_shared_val, num_val=len(prepared.dataset.val), num_unsealed=num_unsealed,
    )  # fmt: skip


def _does_not_fit(sweep: RunRecord, why: str) -> InputError:
    return InputError(
        f"search.warm_start: sweep {sweep.run_id} ({sweep.experiment}) cannot be started from: {why}; name another "
        'sweep, or set search.warm_start = "off"'
    )


def _configurations(sweep: RunRecord, trials: Trials, prepared: Prepared, tracker: Tracker) -> dict[int, Values]:
    """Number of an earlier trial -> the values that it gives a new one, of the best few that differ."""
    space, own = prepared.experiment.search.space, own_values(prepared.experiment, prepared.experiment.search.space)
    searched = recorded_experiment(sweep.run_id, tracker).search.space
    found: dict[int, Values] = {}
    for run_id, number in trials.ranked.items():
        fitting = _fitting(run_id, space, tracker)
        values = own | fitting
        if fitting.keys() & searched.keys() and values != own and values not in found.values():
            found[number] = values
        if len(found) == NUM_CONFIGURATIONS:
            break
    return found


def _fitting(run_id: str, space: Space, tracker: Tracker) -> Values:
    """What an earlier trial had for each key of the new search space, where the space holds it.

    A key that the earlier sweep did not search counts too: it is part of the configuration that was good.
    """
    earlier = recorded_experiment(run_id, tracker)
    return known({key: value_of(earlier, key) for key in space}, space)


def _shared_images(sweep: RunRecord, best_trial: str, dataset: Dataset, tracker: Tracker) -> tuple[int, int]:
    """Val images that are the same, and test images that the earlier sweep may have trained on, as `WarmStart` says.

    Raises:
        InputError: test images of now chose its configurations, or it is not known which images did.
    """
    if sweep.fingerprint == dataset.fingerprint:
        return len(dataset.val), 0
    try:
        theirs = frozenset(recorded_predictions(tracker.get(best_trial), tracker)["digest"])
    except (InputError, KeyError) as error:
        raise _does_not_fit(
            sweep, "its train and val images are others, and which they were is not recorded"
        ) from error
    train, val = (frozenset(names_of(images.digests)) for images in (dataset.train, dataset.val))
    test = frozenset(names_of(dataset.test.hashes().digests)) if dataset.test else frozenset[str]()
    if opened := theirs & test:
        raise _does_not_fit(
            sweep, f"{counted(len(opened), 'image')} of its val split, by which its configurations were chosen, "
            f"{'is' if len(opened) == 1 else 'are'} now in the test split",
        )  # fmt: skip
    has_same_images = bool(theirs & (train | val))
    return len(theirs & val), len(test - _sealed(sweep, tracker)) if has_same_images else 0


def _sealed(sweep: RunRecord, tracker: Tracker) -> frozenset[str]:
    try:
        return frozenset(tracker.read_text(sweep.run_id, Artifact.SEALED_IMAGES).split())
    except InputError:  # it had no test split
        return frozenset()
