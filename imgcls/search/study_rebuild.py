"""A study made again from the record where its storage has lost it: the same trials, values, states and numbers."""

import logging
from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState, create_trial

from imgcls.record import UNKNOWN, Tag
from imgcls.run_record import RunRecord
from imgcls.runs.rebuild import recorded_epochs
from imgcls.search.optuna_internals import PLANNED, attach, begin, is_planned, plan_otherwise
from imgcls.search.promotion import PROMOTED
from imgcls.search.recorded_trials import recorded_end, recorded_pause, recorded_steps, recorded_values, reported_values
from imgcls.search.space import SPACE, Values, distributions
from imgcls.search.study import LOSSES, SweepStudy
from imgcls.text import counted
from imgcls.tracking.store import Tracker
from imgcls.training.epoch import EpochResult

log = logging.getLogger(__name__)


def rebuild(study: SweepStudy, planned: Sequence[Values], tracker: Tracker) -> None:
    """Makes the trials of a study again that the record has and its storage has not, or has not begun.

    A trial that has no run, because its process died before it trained, gets its number and begins again. Whatever this
    leaves undone where it is killed, the same call does later.

    Args:
        study: in its storage, where nobody else begins trials now.
        planned: values with which its first trials were enqueued.
        tracker: of the record.

    Raises:
        TrainingError: the record of a trial does not say which values it had.
    """
    records, stored = _newest_runs(study, tracker), study.optuna.get_trials(deepcopy=False)
    lost = records.keys() - {trial.number for trial in stored if trial.state != TrialState.WAITING}
    if not lost:
        return
    log.info("the study's storage lacks %s of this sweep, read again from the record", counted(len(lost), "trial"))
    for number in range(max(lost) + 1):
        trial, record = stored[number] if number < len(stored) else None, records.get(number)
        if record is not None:
            _restore(study, trial, record, tracker)
        elif trial is None and number < len(planned):
            study.optuna.enqueue_trial(planned[number])
        elif trial is None:
            study.optuna.add_trial(create_trial(state=TrialState.RUNNING))


def _newest_runs(study: SweepStudy, tracker: Tracker) -> dict[int, RunRecord]:
    """Number -> the newest run of that trial. A deleted run counts only if all runs of the trial were deleted."""
    tags = {Tag.KIND: "trial", Tag.STUDY: study.place.name}
    found = tracker.find(tags, experiment=study.experiment.name, with_deleted=True)
    return {record.trial: record for record in sorted(found, key=lambda record: not record.is_deleted)}


def _restore(study: SweepStudy, trial: FrozenTrial | None, record: RunRecord, tracker: Tracker) -> None:
    """Brings one trial to where its record is; `trial` is what the storage has of it."""
    if trial is not None and trial.state.is_finished():
        return
    number, values = record.trial, recorded_values(record, study.experiment.search.space)
    experiment = study.experiment.replace(values, origin=SPACE)
    epochs = recorded_epochs(record, tracker)
    steps = recorded_steps(record, epochs, study.place.num_folds, tracker)
    _begin(study, trial, number, values, reported_values(steps, experiment))
    if Tag.NUM_LOSSES in record.tags:
        attach(study.optuna, number).set_user_attr(LOSSES, record.num_losses)
    if record.outcome in ("completed", "pruned"):
        study.tell(number, recorded_end(record, epochs, experiment.search.metric))
    elif record.outcome == "failed":
        study.tell_of_failure(number, record.reason or UNKNOWN)
    else:
        _restore_pauses(study, record, steps)


def _begin(
    study: SweepStudy, trial: FrozenTrial | None, number: int, values: Values, reported: Mapping[int, float]
) -> None:
    """Has a trial begun, with its values and with what it reported."""
    if trial is None:
        made = create_trial(
            state=TrialState.RUNNING, params=values, distributions=distributions(study.experiment.search.space),
            intermediate_values=dict(reported), system_attrs={PLANNED: values},
        )  # fmt: skip
        study.optuna.add_trial(made)
        return
    if trial.state == TrialState.WAITING:
        begin(study.optuna, number, [trial])
    if not is_planned(trial):
        plan_otherwise(study.optuna, number, values)
    study.values(number)
    for step in reported.keys() - trial.intermediate_values.keys():
        attach(study.optuna, number).report(reported[step], step)


def _restore_pauses(study: SweepStudy, record: RunRecord, steps: Sequence[EpochResult]) -> None:
    """Of a trial that has not ended: from which rung it was sent on last, and whether it waits at the next one."""
    if study.promotion is None or not steps:
        return
    rungs, num_steps = study.place.rungs().epochs[:-1], len(steps)
    if passed := [rung for rung in rungs if rung < num_steps]:
        attach(study.optuna, record.trial).set_user_attr(PROMOTED, passed[-1])
    if record.outcome == "paused" and num_steps in rungs:
        study.tell(record.trial, recorded_pause(record, steps, study.experiment))
