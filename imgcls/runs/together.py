"""A run that several processes train together: the first one leads and records, the others train along."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import torch

from imgcls.errors import InputError, OneProcessError, TrainingError
from imgcls.record import Tag
from imgcls.run_record import RunRecord
from imgcls.runs.prepare import Prepared, prepare
from imgcls.runs.record_writer import Finished
from imgcls.runs.used_params import work_hash
from imgcls.signals import stop_requested
from imgcls.training.loop import TrainState, fit
from imgcls.training.parallel import Ranks


def num_processes_tag(ranks: Ranks) -> dict[str, str]:
    """The tag that says how many processes train a run; none where it is one."""
    return {Tag.NUM_PROCESSES: str(ranks.size)} if ranks.size > 1 else {}


def check_num_processes(begun: RunRecord, ranks: Ranks) -> None:
    """Refuses to go on with a run that another number of processes began: its sums would be rounded otherwise.

    Raises:
        InputError: naming both numbers, and the command with which it goes on.
    """
    if (num := begun.num_processes) != ranks.size:
        how = "without torchrun" if num == 1 else f"with torchrun and {num} processes in all"
        raise InputError(
            f"run {begun.run_id} was begun with {num} processes that train together, and can go on only so; now there "
            f"are {ranks.size}: start it {how}, or begin a new run (imgcls train --fresh)"
        )


@dataclass(frozen=True)
class _Order:
    """What the first process has the others train.

    Attributes:
        fold: number of the fold, from 1; 0 of a run without folds.
        threads: as the run began.
        precision: as the run began.
        squares: format of the images, as the run began.
        work: digests of its settings and its images.
        state: from which they train, as `torch.save` writes its snapshot.
    """

    fold: int
    threads: int
    precision: str
    squares: int
    work: str
    state: bytes


def lead(prepared: Prepared, state: TrainState) -> None:
    """Has the other processes train along from a state, which the first one is about to train further."""
    if prepared.device.ranks.size > 1:
        train, packed = prepared.experiment.train, io.BytesIO()
        torch.save(state.snapshot(), packed)
        fold, squares = prepared.experiment.data.fold, prepared.dataset.squares
        order = _Order(fold, int(train.threads), train.precision, squares, _work(prepared), packed.getvalue())
        prepared.device.ranks.from_first(order)
        prepared.device.ranks.meet()  # once all have the state


def _work(prepared: Prepared) -> str:
    return f"{work_hash(prepared.experiment)} {prepared.dataset.fingerprint}"


def follow(prepared: Prepared) -> Finished:
    """Trains along with the first process, and records nothing.

    Returns:
        The result of the run, as the first process has it.

    Raises:
        LostProcessError: the first process, or another one, has ended.
        OneProcessError: this process has another experiment or other images than the first.
    """
    ranks = prepared.device.ranks
    while isinstance(word := ranks.from_first(cast(object, None)), _Order):
        # All processes have the same loss. The first one says what is wrong with it, and ends.
        with suppress(TrainingError):
            _train_along(prepared, word)
    return cast(Finished, word)


def _train_along(prepared: Prepared, order: _Order) -> None:
    train = prepared.experiment.train.model_copy(update={"threads": order.threads, "precision": order.precision})
    if train != prepared.experiment.train or order.squares != prepared.dataset.squares:
        experiment = prepared.experiment.model_copy(update={"train": train})
        prepared = prepare(experiment, prepared.project, order.squares)
    prepared = prepared.of_fold(order.fold) if order.fold and prepared.has_folds else prepared
    where, ranks = prepared.device.torch_device, prepared.device.ranks
    if _work(prepared) != order.work:
        raise OneProcessError(
            f"process {ranks.rank} of {ranks.size} has another experiment or other images than the first one; start "
            "all of them with the same experiment file, options and images"
        )
    task, state = prepared.begin(with_weights=False)
    state.restore(torch.load(io.BytesIO(order.state), map_location=where, weights_only=True))
    ranks.meet()
    for _ in fit(task, state, stop_requested):
        if ranks.from_first(None):  # the first process ends the run, or pauses it
            return
