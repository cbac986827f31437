"""One tracked run: data, model, loop and record put together."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from imgcls.aside import leftovers
from imgcls.config import AugmentConfig, DataConfig, Experiment, load_experiment, located
from imgcls.data.augment import Augment, Normalise
from imgcls.data.labelled import LabelledImages
from imgcls.data.leaks import NEAR_DUPLICATES, SHOWN, near_duplicates_csv
from imgcls.data.loader import Loader
from imgcls.data.splits import SQUARES_FORMAT, Dataset, load_dataset
from imgcls.data.warned import held_warnings
from imgcls.earlier import is_kept_larger, other_loss, other_squares, same_work
from imgcls.errors import InputError, Interrupted, TrainingError
from imgcls.failures import explain
from imgcls.models.registry import build_model, pretrained_normalisation, resolve_model
from imgcls.progress import RunProgress, duration
from imgcls.reporting import figures
from imgcls.reporting.cautions import caution_tags, cautions
from imgcls.reporting.methods import device_words, schedule_words, start_words
from imgcls.reporting.overview import overview, too_few_to_score
from imgcls.reporting.statistics import NO_INTERVAL, rounded, with_interval
from imgcls.rng import derive_seed
from imgcls.signals import GracefulStop
from imgcls.statistics.intervals import Interval
from imgcls.statistics.scores import hits_interval
from imgcls.tracking.looks import num_opened_before
from imgcls.tracking.origin import heartbeat
from imgcls.tracking.record import (
    ACCURACY_ENDS,
    LEAKS,
    LOSS,
    NUM_NEAR_LEAKED,
    NUM_NOT_COMPARED,
    NUM_OPENED_BEFORE,
    NUM_VAL_GROUPS,
    SPLIT_ORIGINS,
    SQUARES,
    Kind,
    RunRecord,
)
from imgcls.tracking.run import Run
from imgcls.tracking.store import Tracker
from imgcls.training.checkpoint import load_checkpoint, save_checkpoint
from imgcls.training.device import Device, prepare_device
from imgcls.training.loop import Task, TrainState, fit, predict
from imgcls.training.loss import LOSS_DEFINITION
from imgcls.training.metrics import EpochResult

log = logging.getLogger(__name__)

BEST, LAST = "checkpoints/best.pt", "checkpoints/last.pt"
VAL_PREDICTIONS, TEST_PREDICTIONS = "predictions/val.csv", "predictions/test.csv"
CONFIG = "config.toml"


@dataclass(frozen=True)
class Prepared:
    """An experiment ready to run.

    Attributes:
        experiment: resolved: no `auto` and no "the model's own" is left of what affects the result.
        dataset: its images.
        device: where it computes.
        root: the project's root.
        warnings: what is to be said of the images, once; see `announce`.
    """

    experiment: Experiment
    dataset: Dataset
    device: Device
    root: Path
    warnings: tuple[str, ...] = ()

    def task(self) -> Task:
        """What the loop needs besides its state."""
        config, where = self.experiment.train, self.device.torch_device
        return Task(
            config=config,
            metric=self.experiment.search.metric,
            train=Loader(self.dataset.train, config.batch_size, where),
            val=Loader(self.dataset.val, config.eval_batch_size, where),
            augment=Augment(self.experiment.augment, self.experiment.data.image_size),
            normalise=self.normalise(),
            num_classes=len(self.dataset.class_names),
            class_weights=self._class_weights(),
            device=self.device,
        )

    def normalise(self) -> Normalise:
        """The normalisation that the experiment records."""
        data = self.experiment.data
        assert data.mean != "auto"
        assert data.std != "auto"
        return Normalise(data.mean, data.std, self.device.torch_device)

    def model(self, *, with_weights: bool = True) -> nn.Module:
        """The network before training; without its starting weights where a checkpoint replaces them anyway."""
        return build_model(
            self.experiment.model,
            num_classes=len(self.dataset.class_names),
            channels=self.dataset.channels,
            image_size=self.experiment.data.image_size,
            seed=derive_seed(self.experiment.train.seed, "weights"),
            root=self.root,
            with_weights=with_weights,
        )

    def _class_weights(self) -> torch.Tensor | None:
        if self.experiment.train.class_weights == "none":
            return None
        counts = np.bincount(self.dataset.train.labels, minlength=len(self.dataset.class_names))
        weights = counts.sum() / (len(counts) * counts)
        return torch.tensor(weights, dtype=torch.float32, device=self.device.torch_device)


@dataclass(frozen=True)
class Finished:
    """What a run gave.

    Attributes:
        run_id: MLflow's id.
        outcome: `completed` or `pruned`.
        best: its best epoch.
        num_epochs: completed epochs.
        accuracy_interval: 95% interval of the best epoch's val accuracy; `NO_INTERVAL` where there are too few groups.
        caution_tags: its tags from which `cautions.cautions` makes its sentences.
    """

    run_id: str
    outcome: str
    best: EpochResult
    num_epochs: int
    accuracy_interval: Interval
    caution_tags: Mapping[str, str] = field(default_factory=dict)


def prepare(experiment: Experiment, root: Path, squares: int = SQUARES_FORMAT) -> Prepared:
    """Loads the data and resolves every `auto`; trains and records nothing.

    Args:
        experiment: as in its file, with overrides.
        root: the project's root.
        squares: format of the squares of val and test, `imgcls.squares` of the run that is to be repeated or judged.

    Raises:
        InputError: whatever makes the experiment impossible here.
    """
    # Cheap refusals first: a wrong depth should not wait for a thousand images to be decoded.
    channels = 1 if experiment.data.channels == 1 else 3
    resolve_model(experiment.model, channels, experiment.data.image_size, root=root)
    device = prepare_device(experiment.train)
    dataset, warnings = _dataset(experiment.data, experiment.augment, root, squares)
    model = resolve_model(experiment.model, dataset.channels, experiment.data.image_size, root=root)
    mean, std = dataset.mean, dataset.std
    if (pretrained := pretrained_normalisation(model)) is not None:
        mean = pretrained[0] if experiment.data.mean == "auto" else mean
        std = pretrained[1] if experiment.data.std == "auto" else std
    resolved = experiment.model_copy(
        update={
            "data": experiment.data.model_copy(update={"channels": dataset.channels, "mean": mean, "std": std}),
            "model": model,
            "train": experiment.train.model_copy(
                update={
                    "device": str(device.torch_device),
                    "threads": device.threads,
                    "precision": "bfloat16" if device.autocast else "float32",
                }
            ),
        }
    )
    return Prepared(resolved, dataset, device, root, warnings)


def announce(prepared: Prepared, tracker: Tracker, *, runs: str = "") -> None:
    """Says what was found and where it is computed: once, at the start of a verb that reads images.

    What is to be warned of is said in full where the record has no run of these images yet, and counted afterwards.

    Args:
        prepared: what is about to run.
        tracker: where earlier runs may tell how long training will take.
        runs: what is about to be trained, such as `20 trials`; "" for nothing.
    """
    data = prepared.experiment.data
    place = str(located(data.path, prepared.root, "data.path")) if data.source == "folder" else data.source
    if runs and (seconds := _seconds_expected(prepared, tracker)):
        each = "" if runs.startswith("1 ") else " each"
        about = duration(seconds) if seconds >= 1 else f"{seconds:.1g} s"
        runs += f", about {about} of training{each}, going by the newest runs of this experiment"
    log.info("%s", overview(prepared.dataset, place, device_words(str(prepared.device)), work=runs))
    if runs:
        for sentence in cautions({NUM_OPENED_BEFORE: str(_num_opened_before(prepared.dataset, tracker))}):
            log.warning("%s", sentence)
    if prepared.warnings:
        _warn(prepared, tracker)


def _warn(prepared: Prepared, tracker: Tracker) -> None:
    """Gives the warnings of the images in full, or says in which run they were given before."""
    newest = tracker.find(_images_tags(prepared.dataset), newest=NUM_NEWEST)
    fit = prepared.experiment.data.fit
    # Earlier versions had no warning of ends that are cut off.
    told = [record for record in newest if SQUARES in record.tags and record.params.get("data.fit") == fit]
    if not told:
        for warning in prepared.warnings:
            log.warning("%s", warning)
        return
    given = "1 warning was" if len(prepared.warnings) == 1 else f"{len(prepared.warnings)} warnings were"
    run = told[0].run_id + (", or before" if len(newest) == NUM_NEWEST else "")
    log.info("%s given when these images were first used (in run %s)", given, run)


NUM_NEWEST = 20
"""Runs of the same images that are looked through, the newest, since a store may hold thousands."""


def _images_tags(dataset: Dataset) -> dict[str, str]:
    """Tags that every run of the same images has."""
    test = {} if dataset.test is None else {"imgcls.test_fingerprint": dataset.test.fingerprint()}
    return {"imgcls.data_fingerprint": dataset.fingerprint, **test}


def _seconds_expected(prepared: Prepared, tracker: Tracker) -> float:
    """What an epoch took in the newest runs of the same images and device, times the epochs; 0 where there are none."""
    experiment = prepared.experiment
    tags = {"imgcls.data_fingerprint": prepared.dataset.fingerprint}
    # The store cannot search for every device's name.
    newest = tracker.find(tags, experiment=experiment.name, newest=NUM_NEWEST)
    earlier = [record for record in newest if record.tags.get("imgcls.device") == str(prepared.device)]
    took = [record.metrics["epoch_seconds"] for record in earlier if record.metrics.get("epoch_seconds")]
    return median(took) * experiment.train.last_epoch if took else 0.0


@lru_cache(maxsize=2)
def _dataset(data: DataConfig, augment: AugmentConfig, root: Path, squares: int) -> tuple[Dataset, tuple[str, ...]]:
    """The images and what is to be warned of; the trials of a sweep that share their data load it once."""
    with held_warnings() as warnings:
        dataset = load_dataset(data, augment, root, squares)
    return dataset, tuple(filter(None, [*warnings, dataset.cut, too_few_to_score(dataset)]))


def train_run(
    prepared: Prepared,
    tracker: Tracker,
    *,
    kind: Kind,
    name: str,
    stop: GracefulStop,
    parent: str | None = None,
    tags: Mapping[str, str] | None = None,
    prune: Callable[[EpochResult], bool] = lambda _: False,
    fresh: bool = False,
) -> Finished:
    """Trains, and leaves the whole record of it.

    Where the newest run of the same work (config, data, tags) stopped before its end, it is taken up after the last
    step that its checkpoint holds, and ends with the same bits as if it had never stopped.

    Args:
        prepared: what to train.
        tracker: where the record goes.
        kind: of the run.
        name: of the run, for people.
        stop: asked after each step.
        parent: run under which this one stands.
        tags: further tags.
        prune: asked after each epoch, and about the last one once more when a run is taken up; True ends it as pruned.
        fresh: begin a new run even where there is one to take up.

    Raises:
        Interrupted: `stop` was requested; the state after the last whole step is in the last checkpoint.
        TrainingError: the loss is not finite; the run is FAILED, with the reason as a tag.
    """
    of_data = data_tags(prepared.dataset, tracker)
    tags = {"imgcls.identity": _identity(prepared), **(tags or {})}
    if parent is not None:
        tags["mlflow.parentRunId"] = parent
    name_of_experiment = prepared.experiment.name
    earlier = None if fresh else _unfinished(prepared, tracker, {"imgcls.kind": kind, **tags})
    if earlier is not None and parent is None and tracker.is_running(earlier):
        earlier = None  # somebody trains the same beside us; below a sweep or another run, nobody but us may
    if earlier is None:
        with tracker.start_run(name_of_experiment, kind=kind, name=name, tags=tags) as run:
            return _train(run, prepared, of_data, None, {}, kind, name, stop, prune)
    try:
        with tracker.reopen_run(earlier.run_id) as run:
            if run.folder is not None:
                for path in leftovers(run.folder / Path(LAST).parent):
                    path.unlink(missing_ok=True)
            prepared = _as_begun(prepared, tracker, earlier)
            snapshot = _last_snapshot(tracker, earlier, prepared.device)
            return _train(run, prepared, of_data, snapshot, earlier.params, kind, name, stop, prune)
    except DamagedError as error:
        log.warning("%s; a new run begins", error)
        return train_run(
            prepared, tracker, kind=kind, name=name, stop=stop, parent=parent, tags=tags, prune=prune, fresh=True
        )


class DamagedError(TrainingError):
    """The last checkpoint of a run that is to be taken up cannot be read."""


MADE_BY_THE_MACHINE = ("train.device", "train.precision", "train.threads")
"""Keys that are resolved by what the machine has: a run begun with others is still the same work."""


MEASURED = ("data.mean", "data.std")
"""Keys that earlier versions measured on train's larger squares."""


def _unfinished(prepared: Prepared, tracker: Tracker, tags: Mapping[str, str]) -> RunRecord | None:
    """The newest run of the same work, if it has not ended; an earlier version's only if it would end the same."""
    name, dataset = prepared.experiment.name, prepared.dataset
    if (found := tracker.unfinished(name, tags)) is not None:
        return found
    of_any_version = {key: value for key, value in tags.items() if key != "imgcls.identity"}
    of_any_version["imgcls.data_fingerprint"] = dataset.fingerprint
    ignored = [*MADE_BY_THE_MACHINE, *_keys_of_searching(prepared.experiment)]
    if is_kept_larger(dataset):
        ignored += MEASURED
    earlier = same_work(tracker.find(of_any_version, experiment=name), prepared.experiment, ignored)
    if earlier is None or earlier.outcome in ("completed", "pruned"):
        return None
    if others := [*filter(None, (other_squares(earlier, dataset), other_loss(earlier, prepared.experiment)))]:
        log.warning(
            "run %s of the same experiment was begun by an earlier version of imgcls and cannot go on: %s; a new run "
            "begins", earlier.run_id, "; ".join(others),
        )  # fmt: skip
        return None
    return earlier


def _keys_of_searching(experiment: Experiment) -> list[str]:
    """Keys of `[search]` that change nothing in a single run: all but the metric."""
    return [key for key in experiment.params() if key.startswith("search.") and key != "search.metric"]


def _identity(prepared: Prepared) -> str:
    """A name that two runs share if they do the same work."""
    experiment = prepared.experiment
    config_hash = experiment.config_hash(without=[*MADE_BY_THE_MACHINE, *_keys_of_searching(experiment)])
    formats = f"squares {prepared.dataset.squares}", f"loss {LOSS_DEFINITION}"
    return f"{derive_seed(0, config_hash, prepared.dataset.fingerprint, *formats):016x}"


def _as_begun(prepared: Prepared, tracker: Tracker, earlier: RunRecord) -> Prepared:
    """The experiment with the threads and the precision that the run began with, without which its bits would change.

    Raises:
        InputError: it was begun on another kind of device.
    """
    if not tracker.has_artifact(earlier.run_id, CONFIG):  # it was killed before there was anything to keep
        return prepared
    with tracker.fetch(earlier.run_id, CONFIG) as path:
        begun = load_experiment(path).train
    kind_of_device = begun.device.split(":")[0]
    if kind_of_device != prepared.device.torch_device.type:
        raise InputError(
            f"run {earlier.run_id} was begun on {begun.device} and can go on only there; this is "
            f"{prepared.device.torch_device}: set train.device, or begin a new run (imgcls train --fresh)"
        )
    train = prepared.experiment.train.model_copy(update={"threads": begun.threads, "precision": begun.precision})
    if train == prepared.experiment.train:
        return prepared
    log.info("going on with %d threads in %s, as the run began", begun.threads, begun.precision)
    resolved = prepared.experiment.model_copy(update={"train": train})
    return prepare(resolved, prepared.root, prepared.dataset.squares)


def _last_snapshot(tracker: Tracker, earlier: RunRecord, device: Device) -> dict[str, Any] | None:
    if not tracker.has_artifact(earlier.run_id, LAST):
        if "train/loss" in earlier.metrics:  # a run that has no epoch yet has metrics of its images
            raise DamagedError(f"run {earlier.run_id} has completed epochs and no {LAST}")
        log.info("going on with run %s, which stopped before its first checkpoint", earlier.run_id)
        return None
    with tracker.fetch(earlier.run_id, LAST) as path:
        try:
            snapshot: dict[str, Any] = load_checkpoint(path, device.torch_device)["state"]
        except (InputError, KeyError) as error:
            raise DamagedError(f"run {earlier.run_id} cannot go on: {error}") from error
    log.info("going on with run %s after epoch %d, step %d", earlier.run_id, snapshot["epoch"], snapshot["step"])
    return snapshot


def _train(
    run: Run, prepared: Prepared, of_data: dict[str, str], snapshot: dict[str, Any] | None,
    recorded: Mapping[str, str], kind: Kind, name: str, stop: GracefulStop, prune: Callable[[EpochResult], bool],
) -> Finished:  # fmt: skip
    task = prepared.task()
    if snapshot is None:
        _record_start(run, prepared, recorded, of_data)
        if kind == "train":
            log_near_duplicates(run, prepared)
    else:
        run.set_tags(caution_tags(of_data))
    state = TrainState.start(prepared.model(with_weights=snapshot is None), task.config, task.device)
    if snapshot is not None:
        _restore(state, snapshot, run)
    steps = task.train.steps_per_epoch
    progress = RunProgress(name, task.config.last_epoch, steps, done=state.epoch + state.step / steps)
    best_logits: Tensor | None = None
    is_pruned = False
    if state.history and not state.step:
        # Whatever was killed after its checkpoint was written and before the rest was: that is idempotent.
        is_pruned = _after_epoch(run, prepared, state, prune)
    try:
        for result in () if is_pruned else fit(task, state, stop, progress.on_step):
            is_best = state.kept(task.config, task.metric) is result
            assert state.val_logits is not None
            progress.on_epoch(result, is_best, _accuracy_interval(prepared, state.val_logits.numpy()))
            if is_best:
                best_logits = state.val_logits
            _save_last(run, prepared, state)
            if is_pruned := _after_epoch(run, prepared, state, prune):
                break
    finally:
        progress.close()
    if is_pruned:
        run.outcome = "pruned"
    elif stop():
        _save_last(run, prepared, state)
        after = f"epoch {state.epoch + 1}, step {state.step}" if state.step else f"epoch {state.epoch}"
        raise Interrupted(f"stopped by {stop.requested} after {after}")
    if best_logits is None:  # an earlier sitting had the best epoch
        best_logits = _predict_with_best(run, prepared, task)
    return _record_end(run, prepared, of_data, state, best_logits.numpy())


def _restore(state: TrainState, snapshot: dict[str, Any], run: Run) -> None:
    try:
        state.restore(snapshot)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if (told := explain(error)) is not None:  # such as want of memory, which says nothing against the state
            raise told from error
        raise DamagedError(f"run {run.run_id} cannot go on: its last checkpoint does not fit: {error}") from error


def _after_epoch(run: Run, prepared: Prepared, state: TrainState, prune: Callable[[EpochResult], bool]) -> bool:
    """All that follows from a completed epoch once it is in the last checkpoint; doing it twice changes nothing.

    Returns:
        Whether the run is pruned.
    """
    config, result = prepared.experiment.train, state.history[-1]
    if state.kept(config, prepared.experiment.search.metric) is result:
        _save_scored(run, BEST, prepared, state)
    if 0 < config.save_from_epoch <= state.epoch:
        _save_scored(run, f"checkpoints/epoch_{state.epoch:04d}.pt", prepared, state)
    run.log_metrics(result.metrics(), step=result.epoch, tags=heartbeat(), at=result.ended)
    return result.epoch < config.last_epoch and prune(result)


def _predict_with_best(run: Run, prepared: Prepared, task: Task) -> Tensor:
    """Val's logits of the best checkpoint, as they were when it was written."""
    model = prepared.device.place(prepared.model(with_weights=False))
    with run.written(BEST) as path:
        model.load_state_dict(load_checkpoint(path, prepared.device.torch_device)["model"])
    return predict(model, task.val, task.normalise, task.device)


def log_num_near_leaked(run: Run, tags: Mapping[str, str]) -> None:
    """Logs the number as a metric too, by which MLflow's UI sorts; nothing where it is unknown."""
    if tags[NUM_NEAR_LEAKED].isdecimal():
        # At the time of the beginning: a run that is killed here and taken up gives the same point.
        run.log_metrics({NUM_NEAR_LEAKED: float(tags[NUM_NEAR_LEAKED])}, at=run.started)


def _record_start(run: Run, prepared: Prepared, recorded: Mapping[str, str], of_data: dict[str, str]) -> None:
    experiment, dataset = prepared.experiment, prepared.dataset
    run.log_text(CONFIG, experiment.to_toml())
    # Of a run that is taken up the device may be another of the same kind, and MLflow lets no param change.
    run.log_params({key: value for key, value in experiment.params().items() if key not in recorded})
    tags = {"imgcls.config_hash": experiment.config_hash(), "imgcls.device": str(prepared.device)}
    run.set_tags(tags | of_data | {LOSS: str(LOSS_DEFINITION)})
    log_num_near_leaked(run, of_data)
    for split, images in (("train", dataset.train), ("val", dataset.val)):
        counts = np.bincount(images.labels, minlength=len(dataset.class_names))
        of_classes = dict(zip(dataset.class_names, counts.tolist(), strict=True))
        profile = {"num_images": len(images), "num_images_per_class": of_classes}
        run.log_dataset(
            f"{experiment.name}/{split}",
            context=split,
            digest=dataset.fingerprint,
            source=json.dumps({"source": experiment.data.source, "path": experiment.data.path}),
            profile=profile,
        )
    run.describe(_description(prepared, None, of_data))


def data_tags(dataset: Dataset, tracker: Tracker) -> dict[str, str]:
    """What a run's tags say of its images.

    Args:
        dataset: of the run.
        tracker: which remembers the images that evaluations opened.
    """
    near = dataset.leaks.num_near_leaked
    tags = {
        NUM_NEAR_LEAKED: "unknown" if near is None else str(near),
        NUM_OPENED_BEFORE: str(_num_opened_before(dataset, tracker)),
        "imgcls.data_fingerprint": dataset.fingerprint,
        "imgcls.num_train": str(len(dataset.train)),
        "imgcls.num_val": str(len(dataset.val)),
        "imgcls.num_skipped": str(dataset.num_skipped),
        "imgcls.num_ignored": str(sum(dataset.ignored.values())),
        "imgcls.num_several_frames": str(dataset.num_several_frames),
        "imgcls.num_leaked": str(dataset.leaks.num_leaked),
        SPLIT_ORIGINS: json.dumps(dict(dataset.origins)),
        SQUARES: str(dataset.squares),
    }
    if dataset.val.groups:
        tags[NUM_VAL_GROUPS] = str(len(set(dataset.val.groups)))
    if dataset.leaks.summary:
        tags[LEAKS] = dataset.leaks.summary
    if dataset.leaks.num_not_compared:
        tags[NUM_NOT_COMPARED] = str(dataset.leaks.num_not_compared)
    if dataset.test is not None:
        tags["imgcls.test_fingerprint"] = dataset.test.fingerprint()
    return tags


def _num_opened_before(dataset: Dataset, tracker: Tracker) -> int:
    train, val = dataset.train, dataset.val
    digests, sketches = np.concatenate([train.digests, val.digests]), np.concatenate([train.sketches, val.sketches])
    return num_opened_before(tracker, digests, sketches)


def log_near_duplicates(run: Run, prepared: Prepared) -> None:
    """Names the images that look alike, and shows those of train and val; test images are never shown.

    Args:
        run: gets `report/near_duplicates.csv`, `figures/near_duplicates.png` of train and val, and
            `figures/different_classes_train.png` and `..._val.png` of one split, where there are any.
        prepared: its images.
    """
    dataset, leaks = prepared.dataset, prepared.dataset.leaks
    if leaks.near or leaks.disagreeing:
        run.log_text(NEAR_DUPLICATES, near_duplicates_csv(leaks))
    between, title = leaks.between("train", "val").pairs, "Near duplicates, train above val"
    _show_pairs(run, "near_duplicates", title, dataset.train, dataset.val, between)
    for alike in leaks.disagreeing:
        if alike.split != "test":
            images, title = getattr(dataset, alike.split), f"{alike.split} images that look alike, different classes"
            _show_pairs(run, f"different_classes_{alike.split}", title, images, images, alike.pairs)


def _show_pairs(
    run: Run, name: str, title: str, above: LabelledImages, below: LabelledImages, pairs: Sequence[tuple[str, str]]
) -> None:
    if not pairs:
        return
    of_above, of_below = zip(*pairs[:SHOWN], strict=True)
    figure = figures.near_duplicates(
        above.named(of_above).pixels, below.named(of_below).pixels, pairs[:SHOWN], len(pairs), title
    )
    run.log_bytes(f"figures/{name}.png", figures.save_png(figure))


def _save_last(run: Run, prepared: Prepared, state: TrainState) -> None:
    with run.artifact(LAST) as path:
        save_checkpoint(path, {"config": prepared.experiment.to_toml(), "state": state.snapshot()})


def _save_scored(run: Run, name: str, prepared: Prepared, state: TrainState) -> None:
    with run.artifact(name) as path:
        save_checkpoint(path, _scored_checkpoint(prepared, state))


def _scored_checkpoint(prepared: Prepared, state: TrainState) -> dict[str, object]:
    """The weights that val scored, with what is needed to use them anywhere."""
    return {
        "config": prepared.experiment.to_toml(),
        "class_names": list(prepared.dataset.class_names),
        "epoch": state.epoch,
        "metrics": state.history[-1].metrics(),
        "model": state.scored_model.state_dict(),
    }


def _record_end(
    run: Run, prepared: Prepared, of_data: Mapping[str, str], state: TrainState, best_logits: NDArray[np.float32]
) -> Finished:
    best = state.kept(prepared.experiment.train, prepared.experiment.search.metric)
    interval = _accuracy_interval(prepared, best_logits)
    has_ends = bool(prepared.dataset.val.groups) and not math.isnan(interval.low)
    ends = dict(zip(ACCURACY_ENDS, (interval.low, interval.high), strict=True)) if has_ends else {}
    run.log_metrics(
        {"best/epoch": best.epoch, "best/val/accuracy": best.val_accuracy, "best/val/loss": best.val_loss, **ends},
        step=state.epoch,
        at=state.history[-1].ended,
    )
    table = prediction_table(prepared.dataset.val, best_logits, prepared.dataset.class_names)
    run.log_text(VAL_PREDICTIONS, table.to_csv(index=False))
    history = [{"epoch": float(result.epoch), **result.metrics()} for result in state.history]
    run.log_bytes("figures/curves.png", figures.save_png(figures.learning_curves(history, best.epoch)))
    run.describe(_description(prepared, best, of_data, interval))
    return Finished(run.run_id, run.outcome, best, state.epoch, interval, caution_tags(of_data))


def _accuracy_interval(prepared: Prepared, logits: NDArray[np.float32]) -> Interval:
    """Of the val accuracy of these logits, (N, K)."""
    val = prepared.dataset.val
    return hits_interval(logits.argmax(axis=1) == val.labels, val.groups) or NO_INTERVAL


def prediction_table(images: LabelledImages, logits: NDArray[np.float32], class_names: tuple[str, ...]) -> pd.DataFrame:
    """One row an image: its name and digest, its group where images have one, label, prediction, and probabilities.

    Args:
        images: N images of a split.
        logits: float32 (N, K), in their order.
        class_names: K names.
    """
    probs = softmax(logits.astype(np.float64), axis=1)
    columns: dict[str, object] = {
        "image": images.keys,
        "digest": [row.tobytes().hex()[:16] for row in images.digests],
        **({"group": images.groups} if images.groups else {}),
        "label": [class_names[i] for i in images.labels],
        "prediction": [class_names[i] for i in logits.argmax(axis=1)],
    }
    columns |= {f"prob/{name}": probs[:, i] for i, name in enumerate(class_names)}
    return pd.DataFrame(columns)


def _description(
    prepared: Prepared, best: EpochResult | None, of_data: Mapping[str, str], interval: Interval = NO_INTERVAL
) -> str:
    """What MLflow's UI shows on the run's page."""
    experiment, dataset = prepared.experiment, prepared.dataset
    model = experiment.model
    size = experiment.data.image_size
    layers = f", {model.depth} layers, width {model.width}" if model.depth else ""
    lines = [
        f"**{experiment.name}**: `{model.name}`{layers}, on {len(dataset.train)} train and {len(dataset.val)} val "
        f"images of {size} x {size} pixels in {len(dataset.class_names)} classes ({experiment.data.source}).",
        f"{start_words(model.weights)}, {schedule_words(experiment.params())}, lr {experiment.train.lr:g}, batches of "
        f"{experiment.train.batch_size}, seed {experiment.train.seed}.",
    ]
    if best is not None:
        epoch, chosen = "Best epoch", "This epoch was chosen by val, so its val score is not an unbiased one."
        if experiment.train.score_epoch:
            epoch, chosen = "Epoch", "This epoch was fixed before the run began."
        lines.append(
            f"{epoch} {best.epoch}: val/accuracy **{with_interval(best.val_accuracy, interval)}**, "
            f"val/loss {rounded(best.val_loss, interval)}. {chosen}"
        )
    if said := cautions(of_data):
        lines.append(f"**Caution:** {' '.join(said)} These scores may flatter.")
    if dataset.num_skipped:
        were = "image was" if dataset.num_skipped == 1 else "images were"
        lines.append(f"{dataset.num_skipped} unreadable {were} left out.")
    return "\n\n".join(lines)
