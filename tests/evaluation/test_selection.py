"""The story of a run's choice, of every kind of run, against the record as MLflow's own client reads it."""

import math
import re
import statistics
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from imgcls.evaluation.compare import compare
from imgcls.evaluation.confirmation import Confirmed, rank_confirmed
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.evaluation.selection import Selection, Trials, selection_of, story
from imgcls.init.verb import init
from imgcls.record import ALL
from imgcls.reporting.rounding import with_interval
from imgcls.search.confirm import confirm_sweep
from imgcls.search.sweep import Sweep
from imgcls.search.winner import flat
from imgcls.statistics.intervals import accuracy_interval
from tests.data.make import write_classes
from tests.reporting.records import record, trained
from tests.test_record import off_the_page

QUICK = ("train.epochs=1", "train.warmup_epochs=0", "search.trials=3", "model.width=4")
SPACE = ("search.space.model.depth=[8]", "search.space.train.warmup_epochs=[0]")


@dataclass
class Found:
    """A sweep, confirmed; then its fresh scores are changed so that the confirmation ranks its trials anew."""

    project: object
    sweep_id: str
    trials: list  # run ids, best first
    fresh: dict  # trial's run id -> run ids of its fresh seeds
    pruned: str
    single: str
    repeat: str

    def metrics(self, run_id):
        return self.project.tracker.get(run_id).metrics

    def tags(self, run_id):
        return self.project.client.get_run(run_id).data.tags

    def story(self, run_id):
        return " ".join(story(selection_of(self.project.tracker.get(run_id), self.project.tracker)))


def set_scores(project, run_ids, accuracy):
    for run_id in run_ids:
        project.client.log_metric(run_id, "val/accuracy_best", accuracy, step=99)


@pytest.fixture(scope="module")
def found(make_project):
    project = make_project()
    swept = Sweep(project.experiment(*QUICK, *SPACE), project.tracker).run()
    tags = {"imgcls.trial": "9", "imgcls.study": "none", "mlflow.parentRunId": swept.run_id}
    pruned = project.train("train.epochs=2", "model.width=4", kind="trial", tags=tags, prune=lambda _: True)
    single = project.train(*QUICK[:2], "model.width=4")
    repeat = rerun(single.run_id, project.tracker)
    trials = swept.leaderboard["run_id"].tolist()
    numbers = {project.client.get_run(run).data.tags["imgcls.trial"]: run for run in trials}
    result = confirm(project, swept.run_id)
    fresh = {numbers[str(confirmed.trial)]: list(confirmed.run_ids) for confirmed in result.ranked}
    return Found(project, swept.run_id, trials, fresh, pruned.run_id, single.run_id, repeat.now.run_id)


@contextmanager
def scores_as(found, scores):
    """The sweep's record once the fresh runs of these trials have such accuracies and losses; then as before."""
    before = {}
    for trial, (accuracy, loss) in scores.items():
        for run_id in found.fresh[trial]:
            before[run_id] = found.metrics(run_id)
            for name, value in (("accuracy", accuracy), ("loss", loss)):
                found.project.client.log_metric(run_id, f"val/{name}_best", value, step=99)
    confirm(found.project, found.sweep_id)
    yield found.project.tracker.get(found.sweep_id)
    for run_id, metrics in before.items():
        for name in ("accuracy", "loss"):
            found.project.client.log_metric(run_id, f"val/{name}_best", metrics[f"best/val/{name}"], step=99)
    confirm(found.project, found.sweep_id)


def confirm(project, sweep_id):
    return confirm_sweep(sweep_id, project.tracker, top=2, seeds=2)


@pytest.fixture(scope="module")
def reranked(found):
    """The second trial's configuration has the better mean, though its first seed is worse than the best trial."""
    best, second, _ = found.trials
    set_scores(found.project, found.fresh[best], 20 / 202)
    set_scores(found.project, found.fresh[second][:1], 22 / 202)
    set_scores(found.project, found.fresh[second][1:], 60 / 202)
    confirm(found.project, found.sweep_id)
    return found


def shown(found, run_id):
    value = found.metrics(run_id)["best/val/accuracy"]
    return with_interval(value, accuracy_interval(value, 202))


@pytest.mark.slow
def test_a_single_run_and_its_rerun_were_chosen_by_no_sweep(found):
    assert found.story(found.single) == "This run is a single one: no sweep chose its configuration."
    told = found.story(found.repeat)
    assert f"This run repeats run `{found.single}` (verified: bitwise)." in told
    assert f"Run `{found.single}` is a single one" in told


@pytest.mark.slow
def test_the_trial_that_val_ranked_first_says_of_how_many_it_is_the_best(reranked):
    best, second, _ = reranked.trials
    told = reranked.story(best)
    assert "the best of 4 trials (3 completed, 1 pruned) by val/accuracy" in told
    assert "partly the luckiest, so its val/accuracy is optimistic." in told
    winner = reranked.fresh[second][0]
    assert f"not chosen in the end: the sweep's winner is run `{winner}`" in told


@pytest.mark.parametrize("place", [2, 3])
@pytest.mark.slow
def test_another_trial_says_that_it_was_not_chosen(reranked, place):
    told = reranked.story(reranked.trials[place - 1])
    assert f"came in place {place} of the 3 trials that were completed, of 4 in all" in told
    assert "It was not chosen." in told
    assert "the best of" not in told


@pytest.mark.slow
def test_a_pruned_trial_was_not_chosen(found):
    assert "It was not completed (pruned), so it was not chosen." in found.story(found.pruned)


@pytest.mark.slow
def test_the_report_of_another_trial_has_its_own_scores_alone(reranked):
    best, other = reranked.trials[0], reranked.trials[2]
    report = evaluate(other, reranked.project.tracker).report
    assert f"| val/accuracy of this run | {shown(reranked, other)}; this score selected the epoch |" in report
    assert "best of 4 trials" not in report and shown(reranked, best) not in report
    assert "optimism" not in report


@pytest.mark.slow
def test_a_winner_by_confirmation_says_by_what_it_was_chosen(reranked):
    best, second, _ = reranked.trials
    winner = reranked.fresh[second][0]
    told = reranked.story(winner)
    number, other = (reranked.tags(run)["imgcls.trial"] for run in (second, best))
    for fact in (
        f"trained the configuration of trial {number} of the sweep",
        "was chosen by its mean val/accuracy over 2 fresh seeds, the highest of 2 configurations that were confirmed, "
        "which val had picked as the best of 4 trials (3 completed, 1 pruned).",
        "A mean which was the highest of several is itself a little lucky",
        f"The best trial on val was trial {other}, whose configuration came in place 2 with fresh seeds.",
        "it is the first; it was chosen by this place and not by its own score.",
        f"Its own val/accuracy, {shown(reranked, winner)}, is below that of trial {other}, {shown(reranked, best)}",
    ):
        assert fact in told


@pytest.mark.slow
def test_another_seed_of_the_winning_configuration_was_not_chosen(reranked):
    winner, other = reranked.fresh[reranked.trials[1]]
    assert f"It was not chosen: the sweep's winner is run `{winner}`, a fresh seed of trial" in reranked.story(other)


@pytest.mark.slow
def test_the_report_of_a_confirmed_loser_has_the_mean_and_the_optimism_of_its_own_configuration(reranked):
    best = reranked.trials[0]
    loser = reranked.fresh[best][1]
    told = reranked.story(loser)
    assert "the configuration came in place 2 of 2 that were confirmed" in told and "It was not chosen." in told
    selection = selection_of(reranked.project.tracker.get(loser), reranked.project.tracker)
    values = [reranked.metrics(run)["best/val/accuracy"] for run in reranked.fresh[best]]
    assert selection.confirmed.mean == statistics.fmean(values)
    assert selection.confirmed.optimism == reranked.metrics(best)["best/val/accuracy"] - statistics.fmean(values)


@pytest.mark.slow
def test_all_that_a_confirmed_sweep_says_of_its_winner_is_of_that_run(reranked):
    sweep = reranked.project.tracker.get(reranked.sweep_id)
    best, winner = reranked.trials[0], reranked.fresh[reranked.trials[1]][0]
    assert sweep.tags["imgcls.best_run_id"] == winner and sweep.tags["imgcls.best_trial_run_id"] == best
    for name in ("epoch", "val/accuracy", "val/loss"):
        assert sweep.metrics[f"best/{name}"] == reranked.metrics(winner)[f"best/{name}"]
        assert sweep.metrics[f"best_trial/{name}"] == reranked.metrics(best)[f"best/{name}"]
    values = [reranked.metrics(run)["best/val/accuracy"] for run in reranked.fresh[reranked.trials[1]]]
    assert sweep.metrics["confirm/mean"] == statistics.fmean(values)
    facts = flat(reranked.project.tracker.get(reranked.sweep_id))
    assert facts["run_id"] == reranked.sweep_id and facts["imgcls.best_run_id"] == winner
    names = [name for name in facts if name.startswith(("best/", "best_trial/", "confirm/"))]
    assert len(names) > 9 and all(facts[name] == sweep.metrics[name] for name in names)
    report = reranked.project.tracker.read_text(reranked.sweep_id, "report/report.md")
    assert f"Run `{winner}` with `val/accuracy` {shown(reranked, winner)} at epoch 1." in report
    result, _, rest = sweep.tags["mlflow.note.content"].partition("\n\n")
    assert rest.startswith("## Winner") and report.endswith(rest.replace("(#/", "(http://127.0.0.1:5000/#/"))
    assert f"val/accuracy **{shown(reranked, winner)}**" in result


@pytest.mark.slow
def test_a_comparison_says_what_val_chose_of_each_run(reranked):
    best, second, third = reranked.trials
    compared = compare([best, third, reranked.fresh[second][0], reranked.fresh[best][0]], reranked.project.tracker)
    chosen = [compared.selected_by_val(run) for run in compared.runs]
    assert chosen == [["epoch", "trial"], ["epoch"], ["configuration"], []]


@pytest.mark.parametrize(
    ("wanted", "outcomes", "told"),
    [
        ("7", {"completed": 3}, "the best of 3 trials (7 were wanted) by val/accuracy."),
        ("7", {"completed": 2, "pruned": 1}, "the best of 3 trials (2 completed, 1 pruned; 7 were wanted) by"),
        ("3", {"completed": 3}, "the best of 3 trials by val/accuracy."),
        (None, {"completed": 3}, "the best of 3 trials by val/accuracy."),  # of an earlier version
    ],
)
def test_a_sweep_that_was_stopped_early_says_how_many_trials_were_wanted(wanted, outcomes, told):
    sweep = record("sweep1", "sweep", best_run_id="run1", **({"num_trials_wanted": wanted} if wanted else {}))
    trials = Trials({"run1": 1, "run2": 2}, 3, outcomes)
    best = trained("run1", "trial", 0.9, trial=1)
    assert told in " ".join(story(Selection(best, "val/accuracy", sweep=sweep, trials=trials)))


def test_a_sweep_with_a_better_trial_since_says_nothing_of_the_confirmation_before():
    scores = {"best/epoch": 3.0, "best_trial/epoch": 3.0, "num_trials": 9.0, "confirm/mean": 0.9}
    names = {"best_run_id": "run9", "best_trial_run_id": "run9", "confirmed_run_id": "fresh3"}
    facts = flat(record("sweep1", "sweep", metrics=scores, **names))
    assert facts["num_trials"] == 9 and facts["best/epoch"] == 3
    assert "confirm/mean" not in facts


@pytest.mark.slow
def test_the_best_trial_that_its_confirmation_confirms_is_chosen_by_its_mean(reranked):
    """Without another order: the winner is a fresh run of the best trial's configuration."""
    best, second, _ = reranked.trials
    with scores_as(reranked, {best: (0.6, 0.5), second: (0.3, 0.5)}) as sweep:
        winner = reranked.fresh[best][0]
        assert sweep.tags["imgcls.best_run_id"] == winner
        told = reranked.story(winner)
        assert "was chosen by its mean val/accuracy over 2 fresh seeds, the highest of 2 configurations" in told
        assert "The best trial on val was" not in told
        chosen = selection_of(reranked.project.tracker.get(winner), reranked.project.tracker)
        assert chosen.confirmed.found_by.run_id == best and chosen.confirmed.mean == pytest.approx(0.6)
        assert sweep.metrics["best/val/accuracy"] == 0.6 and sweep.metrics["confirm/best_trial_mean"] == 0.6


@pytest.mark.slow
def test_a_confirmation_whose_means_tie_goes_by_the_lower_loss(reranked):
    best, second, _ = reranked.trials
    for losses, first in (((0.7, 0.6), second), ((0.6, 0.7), best)):
        scores = {run: (0.25, loss) for run, loss in zip((best, second), losses, strict=True)}
        with scores_as(reranked, scores) as sweep:
            assert sweep.tags["imgcls.best_run_id"] == reranked.fresh[first][0]
            assert (sweep.metrics["best/val/accuracy"], sweep.metrics["best/val/loss"]) == (0.25, 0.6)


@pytest.mark.slow
def test_a_confirmation_of_fewer_seeds_replaces_the_numbers_of_the_one_before(reranked):
    client = reranked.project.client
    confirm_sweep(reranked.sweep_id, reranked.project.tracker, top=2, seeds=1)
    sweep = client.get_run(reranked.sweep_id).data
    assert sweep.metrics["confirm/num_seeds"] == 1
    winner = sweep.tags["imgcls.best_run_id"]
    assert sweep.metrics["confirm/mean"] == reranked.metrics(winner)["best/val/accuracy"]
    report = reranked.project.tracker.read_text(reranked.sweep_id, "report/report.md")
    assert math.isnan(sweep.metrics["confirm/std"])
    assert "confirm/std" not in flat(reranked.project.tracker.get(reranked.sweep_id))
    assert "not by its own score" not in report and "A score which was the highest" in report
    chosen = selection_of(reranked.project.tracker.get(winner), reranked.project.tracker)
    assert chosen.chosen == "the best of 2 configurations"
    assert "one seed, no interval" in report and not re.search(r"Optimism -?\d\.\d{3}", report)
    points = [len(client.get_metric_history(reranked.sweep_id, f"confirm/{name}")) for name in ("mean", "std")]
    confirm_sweep(reranked.sweep_id, reranked.project.tracker, top=2, seeds=1)
    assert points == [len(client.get_metric_history(reranked.sweep_id, f"confirm/{name}")) for name in ("mean", "std")]
    confirm(reranked.project, reranked.sweep_id)


def fresh(trial, *scores):
    return tuple(trained(f"{trial}.{i}", "confirm", *score, trial=trial) for i, score in enumerate(scores))


@pytest.mark.parametrize(
    ("metric", "scores", "winner"),
    [
        # Equal means: 0.1 + 0.2 and 0.15 + 0.15 differ in their last bit. The lower mean loss decides.
        ("val/accuracy", {2: [(0.1, 0.6), (0.2, 0.6)], 5: [(0.15, 0.5), (0.15, 0.5)]}, 5),
        ("val/accuracy", {2: [(0.9, 0.5)], 5: [(0.9, 0.5)]}, 2),
        ("val/accuracy", {2: [(0.9, 0.1)], 5: [(0.91, 0.5)]}, 5),
        ("val/loss", {2: [(0.9, 0.4)], 5: [(0.9, 0.3)]}, 5),
    ],
)
def test_equal_means_go_by_the_lower_loss_and_then_by_the_number(metric, scores, winner):
    found = [Confirmed(trained(f"t{n}", "trial", 0.9, trial=n), fresh(n, *s), metric) for n, s in scores.items()]
    assert rank_confirmed(found).winner.trial == winner


@pytest.mark.slow
def test_every_name_that_runs_of_all_kinds_leave_is_on_the_page(found):
    evaluate(found.single, found.project.tracker)
    found.project.train("data.folds=2", "train.epochs=1", "train.warmup_epochs=0")
    init("pictures", write_classes(found.project.root / "pictures", {"a": 12, "b": 12}), 60.0, found.project.root)
    assert {record.kind for record in found.project.tracker.find({})} == set(ALL)
    assert off_the_page(found.project.client) == set()


@pytest.mark.parametrize(
    ("outcomes", "only_one"),
    [
        ({"completed": 1, "failed": 2}, True),
        ({"completed": 1, "pruned": 2}, False),
        ({"completed": 1, "paused": 1, "failed": 1}, False),
        ({"completed": 2}, False),
    ],
)
def test_a_trial_that_was_pruned_or_paused_was_compared_with_the_only_completed_one(outcomes, only_one):
    ranked = {f"run{number}": number for number in range(outcomes["completed"])}
    assert Trials(ranked, sum(outcomes.values()), outcomes).others_failed == only_one
