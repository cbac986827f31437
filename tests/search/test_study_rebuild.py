"""A study whose storage is lost in the middle of a sweep is made again from the record."""

import contextlib
import functools
import logging
import shutil

import pytest

from imgcls.config.ranges import Range
from imgcls.errors import Interrupted, TrainingError
from imgcls.record import Tag
from imgcls.run_record import RunRecord
from imgcls.search.optuna_internals import planned_values
from imgcls.search.promotion import PAUSED, PROMOTED, is_paused
from imgcls.search.recorded_trials import recorded_values, values_in_words
from imgcls.search.study_rebuild import rebuild
from imgcls.search.sweep import Sweep
from tests.search.test_pause import HALVING
from tests.search.test_sweep import everything
from tests.stops import StopAfter

MEDIAN = (*HALVING, 'search.pruner="median"')
FOLDS = (*HALVING, "data.folds=3", "train.epochs=1", 'search.pruner="wilcoxon"', "search.trials=3")


def sweep(project, *overrides):
    return Sweep(project.experiment(*overrides), project.tracker).run()


def trials(project, *overrides):
    """What the storage holds of each trial, less what nobody reads."""
    (run,) = project.runs(kind="sweep")
    study = Sweep(project.experiment(*overrides), project.tracker).study(run.run_id)
    found = []
    for trial in study.optuna.get_trials():
        attrs = dict(trial.user_attrs)
        if trial.state.is_finished():  # of images in folds, only reported scores are recorded for all of them together
            unread = PAUSED, PROMOTED, *(("val/balanced_accuracy", "val/macro_f1") if study.place.num_folds else ())
            attrs = {key: value for key, value in attrs.items() if key not in unread}
        elif not is_paused(trial):  # it has the scores of its last pause until it ends
            attrs = {key: value for key, value in attrs.items() if key == PROMOTED}
        of = trial.number, trial.state, trial.values, trial.params, trial.distributions, trial.intermediate_values
        found.append((*of, attrs, trial.system_attrs))
    return found


@pytest.fixture(scope="module")
def undisturbed(make_project):
    """With overrides, gives all of a sweep that nobody stopped."""

    @functools.cache
    def of(overrides):
        made = make_project()
        with contextlib.chdir(made.root):
            return everything(made, sweep(made, *overrides))

    return of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "stops"),
    [(HALVING, [9, 8, 12]), (MEDIAN, [55]), (FOLDS, [20])],
    ids=["halving", "median", "folds"],
)
def test_a_sweep_whose_study_was_lost_ends_like_one_that_nobody_stopped(project, undisturbed, caplog, overrides, stops):
    """It is lost again each time that the sweep was stopped after so many questions."""
    for questions in stops:
        with pytest.raises(Interrupted), StopAfter(questions):
            sweep(project, *overrides)
        before, runs = trials(project, *overrides), {run.run_id for run in project.runs(kind="trial")}
        shutil.rmtree(project.root / "mlruns" / ".studies")
        caplog.clear()
        with caplog.at_level(logging.INFO), pytest.raises(Interrupted), StopAfter(0):
            sweep(project, *overrides)
        assert f"lacks {len(runs)} trial" in caplog.text
        for now, then in zip(trials(project, *overrides), before, strict=True):
            assert now == then
    assert everything(project, sweep(project, *overrides)) == undisturbed(overrides)
    assert runs <= {run.run_id for run in project.runs(kind="trial")}
    assert len(project.runs(kind="sweep")) == 1


@pytest.mark.slow
def test_a_trial_without_a_run_gets_its_number_back_and_the_failed_one_its_error(project):
    """Trials 0 and 3 have runs; 1 was planned and has none, and 2 was drawn and has none."""
    overrides = "search.trials=2", "search.pruner=none"
    sweep_id = sweep(project, *overrides).run_id
    first, second = project.runs(kind="trial")
    project.tracker.amend(second.run_id).set_tags(
        {Tag.TRIAL: "3", Tag.OUTCOME: "failed", Tag.REASON: "too hot", Tag.NUM_LOSSES: "2"}
    )
    shutil.rmtree(project.root / "mlruns" / ".studies")
    search = Sweep(project.experiment(*overrides), project.tracker)
    study = search.study(sweep_id)
    planned = [
        recorded_values(first, study.experiment.search.space),
        recorded_values(second, study.experiment.search.space),
    ]
    rebuild(study, planned, project.tracker)
    rebuild(study, planned, project.tracker)
    found = study.optuna.get_trials()
    assert [trial.state.name for trial in found] == ["COMPLETE", "WAITING", "RUNNING", "FAIL"]
    assert planned_values(found[1]) == found[3].params == planned[1]
    assert not found[2].system_attrs and not found[2].params
    assert found[3].user_attrs == {"error": "too hot", "losses": 2}
    assert (study.left(), study.ask()) == ([2], 1)
    assert study.values(2).keys() == planned[0].keys()


SPACE = {
    "train.lr": Range(low=1e-4, high=1e-1, log=True), "train.warmup_epochs": Range(low=0, high=9),
    "train.nesterov": (True, False), "model.weights": ("", "a, b = 3"), "train.weight_decay": (1e-4, 0.5),
}  # fmt: skip


def record(**tags):
    return RunRecord("id", "tiny", "", "FINISHED", 0, {"train.weight_decay": "0.5"}, {}, {Tag.TRIAL: "3", **tags})


@pytest.mark.parametrize("weights", ["", "a, b = 3"])
def test_the_values_of_a_trial_are_read_as_they_were_written(weights):
    values = {
        "train.lr": 0.1 / 3, "train.warmup_epochs": 7, "train.nesterov": False, "model.weights": weights,
        "train.weight_decay": 0.0001,
    }  # fmt: skip
    found = recorded_values(record(**{Tag.VALUES: values_in_words(values)}), SPACE)
    assert list(map(repr, found.items())) == list(map(repr, values.items()))


def test_values_that_are_not_recorded_are_not_made_up():
    said = "train.lr = 0.01, train.warmup_epochs = 3, train.nesterov = True, model.weights = "
    assert recorded_values(record(**{Tag.VALUES: said}), SPACE)["train.weight_decay"] == 0.5
    with pytest.raises(TrainingError, match=r"lost trial 3, and its run id does not say which model\.weights it had"):
        recorded_values(record(**{Tag.VALUES: said.replace("weights = ", "weights = c")}), SPACE)
