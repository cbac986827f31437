"""A sweep's budget: what fits, what is kept for the end, and a real sweep that ends with a winner."""

import logging
import time

import pytest

from imgcls.cli.sweep import write_end
from imgcls.search.budget import START_SECONDS, Budget, ConfirmationTime, SearchTime, fewer_confirmed
from imgcls.search.halving import Rungs
from imgcls.search.sweep import Sweep

HOUR = 3600.0


def search_time(seconds=HOUR, **of):
    settings = {"num_epochs": 10, "epoch_seconds": 2.0, "report_seconds": 10.0} | of
    made = SearchTime(Budget(seconds), **settings)
    made.trial_seconds = 0.0
    return made


@pytest.mark.parametrize(
    ("top", "seeds", "most", "found"),
    [
        (3, 3, 9, (3, 3)),
        (3, 3, 100, (3, 3)),
        (3, 3, 6, (3, 2)),
        (3, 3, 4, (2, 2)),
        (3, 3, 3, (1, 3)),  # two seeds tell more than two configurations
        (3, 3, 1, (1, 1)),
        (3, 3, 0, (0, 0)),
        (3, 1, 2, (2, 1)),
        (3, 0, 9, (0, 0)),
    ],
)
def test_where_a_confirmation_does_not_fit_there_is_less_of_it(top, seeds, most, found):
    assert fewer_confirmed(top, seeds, most) == found


def test_a_confirmation_takes_at_most_half_of_the_time_for_training():
    # 210 s less 10 s for the report: a training takes 20 s, so 5 runs are half of it.
    assert search_time(210.5, confirm=(3, 2)).confirmation() == (2, 2)
    assert search_time(confirm=(3, 2)).confirmation() == (3, 2)
    assert search_time(confirm=(3, 2)).for_the_end() == 2 * 10 + 6 * 20  # the report is written again
    assert search_time().for_the_end() == 10
    # Two workers train six runs in the time of three, after they have started.
    assert search_time(confirm=(3, 2), num_workers=2).for_the_end() == 2 * 10 + START_SECONDS + 3 * 20
    # Of 100 s, 7 s pass until they have started, and four rounds of two runs fit into the rest.
    assert search_time(210.5, confirm=(3, 3), num_workers=2).confirmation() == (3, 2)


def test_what_is_kept_follows_the_epochs_that_were_seen():
    found = search_time(confirm=(1, 1))
    found.learn(num_epochs=5, epoch_seconds=4.0, seconds=21.0)
    assert (found.epoch_seconds, found.trial_seconds) == (4.0, 1.0)
    found.learn(num_epochs=15, epoch_seconds=8.0, seconds=123.0)
    assert (found.epoch_seconds, found.trial_seconds) == (7.0, 2.0)
    assert found.for_the_end() == 2 * 10 + 10 * 7 + 2
    found.learn(num_epochs=0, epoch_seconds=100.0, seconds=1.0)  # it was paused before its first epoch ended
    assert found.epoch_seconds == 7.0


@pytest.mark.parametrize(
    ("workers", "epochs_of", "num"),
    [(1, lambda num: 10 * num, 5), (2, lambda num: 10 * num, 10), (1, Rungs((1, 3, 10), factor=3).num_epochs, 27)],
)
def test_as_many_trials_as_fit(workers, epochs_of, num):
    # 101 s for the search; a training takes 20 s. With rungs, 27 trials take 27 + 18 + 21 epochs of 1.5 s.
    epoch_seconds = 2.0 if num != 27 else 1.5
    assert search_time(111.0, num_workers=workers, epoch_seconds=epoch_seconds).num_trials(epochs_of) == num
    assert search_time(5.0).num_trials(epochs_of) == 1


def test_it_says_what_fits_and_what_to_change_where_little_does():
    much, little = search_time(confirm=(3, 1)), search_time(72.0, confirm=(3, 1))
    assert "12 trials" in much.in_words(12, "median") and "1 min 00 s for a confirmation of 3" in much.in_words(12, "x")
    assert much.warnings() == []
    fewer, cut = little.warnings()
    assert "fewer than 4 whole trainings fit" in fewer and "--set train.epochs=" in fewer
    assert cut.startswith("a confirmation of 3 configurations with 1 fresh seed would take 1 min 00 s, more than half")
    assert "planned is a confirmation of 1 configuration" in cut
    tiny = search_time(25.0).warnings()
    assert "not even one whole training is expected to end in time" in tiny[-1]


def test_what_is_confirmed_follows_the_time_that_is_left():
    left = ConfirmationTime(search_time(60.0), report_seconds=15.0)  # 45 s for runs of 5 and of 10 epochs: 15 s each
    assert left.fitting(2, 3, [5, 10]) == (1, 2)
    assert left.has_time_for(10) and not left.has_time_for(30)
    several = ConfirmationTime(search_time(60.0, num_workers=2), report_seconds=15.0)  # two rounds of two runs
    assert several.fitting(2, 3, [5, 10]) == (2, 2)


@pytest.mark.slow
def test_a_sweep_of_twenty_seconds_ends_with_a_winner(project, caplog, capsys):
    overrides = ("train.epochs=9", 'search.pruner="halving"', "search.confirm.seeds=1", "search.confirm.top=1")
    with caplog.at_level(logging.INFO):
        result = Sweep(project.experiment(*overrides), project.tracker, Budget(20.0)).run()
    assert "budget 20 s: a training of 9 epochs takes about" in caplog.text
    sweep = project.tracker.get(result.run_id)
    assert sweep.tags["imgcls.budget"] == "20" and result.best_run_id
    write_end(result.run_id, project.tracker)
    assert result.best_run_id in capsys.readouterr().out
    assert {run.outcome for run in project.runs(kind="trial")} <= {"completed", "pruned", "paused"}


@pytest.mark.slow
def test_without_time_for_a_training_the_best_epoch_so_far_wins_and_the_next_sitting_goes_on(project, caplog, capsys):
    over = Budget(10.0, began=time.time() - 60)
    result = Sweep(project.experiment("search.trials=2"), project.tracker, over).run()
    (trial,) = project.runs(kind="trial")
    assert (trial.outcome, trial.run_id) == ("completed", result.best_run_id)
    assert trial.tags["imgcls.ended_early"] == "1 of 3 epochs"
    assert "the budget was too short for a whole training: trial 0 ends" in caplog.text
    assert "It was not trained to its end (1 of 3 epochs)" in project.tracker.read_text(
        result.run_id, "report/report.md"
    )
    write_end(result.run_id, project.tracker)
    assert "It was not trained to its end" in capsys.readouterr().out
    again = Sweep(project.experiment("search.trials=2"), project.tracker).run()
    assert again.run_id == result.run_id and len(project.runs(kind="trial")) == 2
    assert "imgcls.budget" not in project.tracker.get(result.run_id).tags


@pytest.mark.slow
def test_a_trial_that_runs_out_of_time_is_paused_and_goes_on_to_the_same_bits(project, make_project):
    from imgcls.errors import OutOfTime
    from imgcls.runs.limits import Limits
    from tests.runs.test_resume import points

    with pytest.raises(OutOfTime):
        project.train(limits=Limits(until=time.time() - 1))
    (run,) = project.runs()
    assert (run.outcome, run.status) == ("paused", "SCHEDULED") and "its time was over" in run.reason
    assert project.train().run_id == run.run_id
    other = make_project()
    assert points(project, run.run_id) == points(other, other.train().run_id)
