import io
import logging
import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from multiprocessing.connection import wait

import optuna
import pandas as pd
import pytest

from imgcls.cli.sweep import write_end
from imgcls.errors import ConfigError, InputError, Interrupted, TrainingError
from imgcls.evaluation.judge import evaluate
from imgcls.record import Artifact
from imgcls.search.driver import Driver
from imgcls.search.engines import LocalProcesses
from imgcls.search.pruners import make_pruner
from imgcls.search.space import _pairs_of_values, suggest
from imgcls.search.sweep import Sweep
from imgcls.search.winner import flat
from imgcls.signals import GracefulStop
from imgcls.tracking.run import Run
from tests import fast_start
from tests.conftest import refusing_the_test_split
from tests.stops import StopAfter, insist_while_saving


def sweep(project, *overrides):
    return Sweep(project.experiment(*overrides), project.tracker).run()


QUICK = (
    "train.epochs=1",
    "train.warmup_epochs=0",
    "search.space.train.warmup_epochs=[0]",
    "search.space.model.depth=[8]",
)
"""One epoch of one network; the learning rate alone is searched."""


def trial_params(project, result):
    trials = project.tracker.children(result.run_id, "trial")
    return [
        (record.tags["imgcls.trial"], record.params["train.lr"], record.params["model.depth"], record.outcome)
        for record in trials
        if record.outcome != "interrupted"
    ]


@pytest.fixture(scope="module")
def swept(make_project):
    """A project with a sweep that nobody stopped, and what came of it."""
    made = make_project()
    with refusing_the_test_split():
        return made, sweep(made)


def test_a_sweep_leaves_its_record(swept):
    project, result = swept
    parent = project.client.get_run(result.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["imgcls.kind"] == "sweep"
    assert parent.data.tags["imgcls.best_run_id"] == result.best_run_id
    trials = project.tracker.children(result.run_id, "trial")
    assert [record.tags["imgcls.trial"] for record in trials] == ["0", "1", "2"]
    assert {record.tags["imgcls.study"] for record in trials} == {parent.data.tags["imgcls.study"]}
    # Trial 0 is the experiment's own values.
    own = {"train.lr": "0.02", "train.warmup_epochs": "1", "model.depth": "8"}
    assert {key: trials[0].params[key] for key in own} == own
    # The winner is the best of the completed ones.
    scores = {r.run_id: r.metrics["best/val/accuracy"] for r in trials if r.outcome == "completed"}
    assert scores[result.best_run_id] == max(scores.values()) == result.best_value
    board = pd.read_csv(io.StringIO(project.tracker.read_text(result.run_id, "report/leaderboard.csv")))
    assert board["run_id"].iloc[0] == result.best_run_id
    assert {"trial", "val/accuracy", "val/loss", "train.lr", "model.depth"} <= set(board.columns)
    page = project.tracker.read_text(result.run_id, "figures/search.html")
    assert "<script" not in page and len(page) < 1e6
    assert all(f"val/accuracy of each trial against {key}. " in page for key in own)
    assert result.best_run_id in project.tracker.read_text(result.run_id, "report/report.md")
    assert result.best_run_id in parent.data.tags["mlflow.note.content"]


class KilledError(BaseException):
    """Stands for a kill at one line: nobody catches it."""


def everything(project, result):
    """All that two equal sweeps have in common: trials, every point of every curve, the winner."""
    trials = project.tracker.children(result.run_id, "trial")
    curves = [
        [(metric, project.tracker.history(record.run_id, metric)) for metric in ("train/loss", "val/loss", "train/lr")]
        for record in trials
    ]
    winner = next(record for record in trials if record.run_id == result.best_run_id)
    scores = result.leaderboard.drop(columns="run_id").to_dict("records")
    return trial_params(project, result), curves, winner.tags["imgcls.trial"], scores


@pytest.fixture(scope="module")
def whole(swept):
    """A sweep that nobody stopped."""
    return everything(*swept)


@pytest.mark.slow
def test_typed_again_after_a_trial_and_after_a_stop_it_goes_on_and_equals_a_sweep_that_was_never_left(project, whole):
    first = sweep(project, "search.trials=1")
    with pytest.raises(Interrupted), StopAfter(20):  # in the second trial of those that are missing
        sweep(project)
    (parent,) = project.runs(kind="sweep")
    assert (parent.status, parent.outcome) == ("KILLED", "interrupted")
    again = sweep(project)
    assert again.run_id == first.run_id
    assert everything(project, again) == whole
    assert len(project.runs(kind="trial")) == 3


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_with_the_same_trial_to_the_same_end(project, whole):
    for questions in (0, 40):  # a trial asks some 18 times
        with pytest.raises(Interrupted), StopAfter(questions):
            sweep(project)
        (parent,) = project.runs(kind="sweep")
        assert (parent.status, parent.outcome) == ("KILLED", "interrupted")
    result = sweep(project)
    assert result.run_id == parent.run_id
    assert everything(project, result) == whole
    assert len(project.runs(kind="trial")) == 3


@pytest.mark.slow
def test_a_trial_that_a_second_signal_ends_while_it_saves_has_not_failed(project, whole, monkeypatch):
    insist_while_saving(monkeypatch, call=10, write=9)
    with pytest.raises((Interrupted, KeyboardInterrupt)), GracefulStop():
        sweep(project)
    monkeypatch.undo()
    monkeypatch.chdir(project.root)
    assert "failed" not in [record.outcome for record in project.runs()]
    assert everything(project, sweep(project)) == whole
    assert len(project.runs(kind="trial")) == 3


@pytest.mark.slow
def test_a_stopped_trial_is_taken_up_where_more_trials_are_asked_for(project):
    with pytest.raises(Interrupted), StopAfter(20):
        sweep(project)
    stopped = [record.run_id for record in project.runs(kind="trial", outcome="interrupted")]
    assert len(stopped) == 1
    sweep(project, "search.trials=4")
    assert {r.run_id: r.outcome for r in project.runs(kind="trial")}[stopped[0]] == "completed"
    assert len(project.runs(kind="trial")) == 4


@contextmanager
def killed_at(owner, name, number=1, first=None):
    """Kills the sweep in the call with this number of a method; calls with another first argument do not count."""
    original, calls = getattr(owner, name), []

    def kill(self, *arguments, **options):
        if first in (None, arguments[0]):
            calls.append(arguments)
            if len(calls) == number:
                raise KilledError
        return original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, kill)
        yield


@pytest.mark.slow
def test_a_sweep_killed_where_its_record_and_its_study_differ_ends_the_same(project, whole):
    with killed_at(Run, "log_text", first=Artifact.CONFIG), pytest.raises(KilledError):  # while it begins its record
        sweep(project)
    with killed_at(optuna.Trial, "suggest_float"), pytest.raises(KilledError):  # among the values of the first trial
        sweep(project)
    with killed_at(Driver, "_tell"), pytest.raises(KilledError):  # before the study was told of it
        sweep(project)
    with killed_at(optuna.Trial, "suggest_float", 2), pytest.raises(KilledError):  # among the values of a later trial
        sweep(project)
    assert everything(project, sweep(project)) == whole
    assert len(project.runs(kind="trial")) == 3


@pytest.mark.slow
def test_a_trial_whose_process_was_killed_is_taken_up(project, whole):
    process = fast_start.Popen(
        [sys.executable, "-m", "imgcls", "sweep", "tiny"], cwd=project.root, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("trial 1 epoch"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert [record.outcome for record in project.runs(kind="trial")] == ["completed", "running"]
    assert everything(project, sweep(project)) == whole
    assert {record.status for record in project.tracker.find({})} == {"FINISHED"}


@pytest.mark.slow
def test_an_edited_experiment_starts_a_new_study_and_says_so(project, caplog):
    first = sweep(project, *QUICK, "search.trials=1")
    with caplog.at_level("INFO"):
        second = sweep(project, *QUICK, "search.trials=1", "train.epochs=2")
    assert second.run_id != first.run_id
    assert f"differ from those of sweep {first.run_id} in train.epochs (was 1, is 2): a new study" in caplog.text


@pytest.mark.slow
def test_other_data_start_a_new_study(project):
    first = sweep(project, *QUICK, "search.trials=1")
    assert sweep(project, *QUICK, "search.trials=1", "data.seed=1").run_id != first.run_id


def test_what_makes_a_study_new_is_named(project, caplog):
    caplog.set_level("INFO")

    def begun(*overrides):
        with Sweep(project.experiment(*QUICK, *overrides), project.tracker)._parent_run() as run:
            return project.tracker.get(run.run_id)

    first, images = begun(), ("data.seed=1", "search.trials=7")
    second = begun(*images)
    keys = "data.seed (was 0, is 1) and the images of train and val"
    assert f"sweep {first.run_id} in {keys}: a new study starts" in caplog.text
    begun(*images, "search.space.augment.mixup=[0.0, 0.2]", "train.threads=2")
    keys = "train.threads (was 1, is 2) and search.space.augment.mixup (was not there, is [0.0, 0.2])"
    assert f"sweep {second.run_id} in {keys}: a new study starts" in caplog.text
    fourth = begun(*(f"train.{key}" for key in ("seed=1", "batch_size=128", "weight_decay=0.2", "label_smoothing=0.1")))
    assert "and 2 more: a new study starts" in caplog.text
    (fourth.folder / Artifact.CONFIG).unlink()
    begun(*images, "train.seed=1")
    assert f"differ from those of sweep {fourth.run_id} in the images of train and val: a new" in caplog.text


@pytest.mark.slow
def test_a_grid_runs_each_point_once_after_the_own_values(project):
    space = "search.space.{}={}"
    result = sweep(
        project,
        'search.sampler="grid"',
        "search.trials=50",
        "train.epochs=2",
        space.format("train.lr", "[0.02, 0.01]"),
        space.format("train.warmup_epochs", "[1]"),
    )
    rows = [(row[1], row[2]) for row in trial_params(project, result)]
    assert rows[0] == ("0.02", "8")
    assert sorted(rows) == [("0.01", "14"), ("0.01", "8"), ("0.02", "14"), ("0.02", "8")]


@pytest.mark.slow
def test_random_and_tpe_sweeps_are_functions_of_their_seed(project):
    rows = {}
    for seed in (0, 1):
        result = sweep(project, 'search.sampler="random"', f"search.seed={seed}", "train.epochs=2")
        rows[seed] = trial_params(project, result)
    assert rows[0][0] == rows[1][0]  # the experiment's own values
    assert rows[0][1:] != rows[1][1:]


@pytest.mark.slow
def test_what_auto_stands_for_is_recorded_and_stays_and_asked_again_a_sweep_trains_nothing(project, caplog):
    auto = ('search.sampler="auto"', 'search.pruner="median"')
    with caplog.at_level(logging.INFO):
        result = sweep(project, *QUICK, *auto, "search.trials=1")
    assert 'search.sampler = "auto": gp, for the whole study' in caplog.messages
    assert project.client.get_run(result.run_id).data.params["search.sampler"] == "gp"
    later = Sweep(project.experiment(*QUICK, *auto, "search.trials=1000"), project.tracker)
    assert later.study(result.run_id).sampler == "gp"
    # Asked for what is there already, it trains nothing.
    with caplog.at_level(logging.INFO):
        again = sweep(project, *QUICK, *auto, "search.trials=1")
    assert "1 of 1 trials have ended already" in caplog.messages
    assert (again.run_id, again.best_run_id) == (result.run_id, result.best_run_id)
    assert len(project.runs(kind="trial")) == 1


@pytest.mark.slow
def test_pruned_trials_are_finished_and_never_win(project):
    rates = [0.02, 0.021, 0.022, 0.023, 0.024, 1e-7]  # the median pruner judges from the sixth trial on
    result = sweep(
        project, "search.trials=6", 'search.sampler="grid"', f"search.space.train.lr={rates}",
        "search.space.train.warmup_epochs=[1]", "search.space.model.depth=[8]", "model.width=4",
        'search.pruner="median"',
    )  # fmt: skip
    records = project.tracker.children(result.run_id, "trial")
    pruned = [r for r in records if r.outcome == "pruned"]
    assert [record.params["train.lr"] for record in pruned] == ["1e-07"]
    assert {r.status for r in records} == {"FINISHED"}
    for record in pruned:  # the longest warm-up searched is 1 epoch, so none is judged before the second
        assert len(project.tracker.history(record.run_id, "val/loss")) >= 2
        assert (record.folder / Artifact.VAL_PREDICTIONS).exists() and not list(
            (record.folder / Artifact.LAST).parent.iterdir()
        )
    assert result.best_run_id not in {r.run_id for r in pruned}


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_no_pruner_judges_before_the_warmup_is_over(project, pruner):
    import optuna

    experiment = project.experiment(f'search.pruner="{pruner}"', "train.epochs=9")
    study = optuna.create_study(direction="maximize", pruner=make_pruner(experiment, warmup=3))
    for _ in range(12):
        good = study.ask()
        for epoch in range(1, 10):
            good.report(0.9, epoch)
            good.should_prune()
        study.tell(good, 0.9)
    judged = set()
    for _ in range(30):  # several, for Hyperband's brackets differ in when they judge
        bad = study.ask()
        for epoch in range(1, 10):
            bad.report(0.1, epoch)
            if bad.should_prune():
                judged.add(epoch)
                break
        study.tell(bad, state=optuna.trial.TrialState.PRUNED)
    assert judged
    assert min(judged) >= 3


def test_a_pruner_told_to_judge_during_the_warmup_is_refused(project):
    with pytest.raises(ConfigError, match=r"pruner_warmup_epochs = 0 .* up to 1 epochs"):
        sweep(project, "search.pruner_warmup_epochs=0", 'search.pruner="median"')


def test_failed_trials_do_not_end_a_sweep_but_three_alike_do(project):
    with pytest.raises(TrainingError, match="3 trials in a row failed alike"):
        sweep(
            project, "search.trials=8", "train.lr=2e30", "train.warmup_epochs=0", "model.depth=8",
            "search.space.train.lr=[2e30]", "search.space.train.warmup_epochs=[0]", "search.space.model.depth=[8]",
            'search.sampler="random"',
        )  # fmt: skip
    (parent,) = project.runs(kind="sweep")
    assert parent.status == "FAILED"
    assert [r.status for r in project.runs(kind="trial")] == ["FAILED"] * 3


def test_a_second_sweep_of_the_same_study_at_once_is_told(project):
    experiment = project.experiment()
    first = Sweep(experiment, project.tracker)
    from imgcls.search.study import only_one

    with (
        only_one(project.root, first.name),
        pytest.raises(InputError, match=f"already running .process {os.getpid()}"),
    ):
        first.run()


@pytest.mark.slow
def test_a_timeout_starts_no_further_trial_and_is_told_everywhere(project, caplog, capsys):
    experiment = project.experiment(*QUICK, "search.trials=3", "search.timeout=1e-6")
    with caplog.at_level(logging.INFO):
        result = Sweep(experiment, project.tracker).run()
    assert len(result.leaderboard) == 1
    assert (
        "search.timeout = 1e-06 s is over after 1 of 3 trials; the same command goes on for up to 1e-06 s more"
        in caplog.messages
    )
    report = project.tracker.read_text(result.run_id, Artifact.REPORT)
    cut_short = "1 of 3 trials (search.timeout is over)"
    methods = report.split("## For a methods section")[1]
    assert f"of the winner of {cut_short}." in report and f"validation images in {cut_short} (" in methods
    write_end(result.run_id, project.tracker)
    assert f"{cut_short}: the same imgcls sweep goes on" in capsys.readouterr().out
    assert not any("was opened already" in message for message in caplog.messages)

    facts = flat(project.tracker.get(result.run_id))
    assert (facts["num_trials"], facts["imgcls.num_trials_wanted"]) == (1, 3)
    judged = evaluate(result.best_run_id, project.tracker)
    assert "It is the only trial of the sweep; 3 were wanted." in judged.report
    assert "| trials | 1 (3 were wanted) |" in judged.report
    whole = Sweep(project.experiment(*QUICK, "search.trials=2"), project.tracker).run()
    assert (whole.run_id, len(whole.leaderboard)) == (result.run_id, 2)
    assert any("was opened already (1 look in `imgcls ledger`)" in message for message in caplog.messages)
    capsys.readouterr()
    write_end(whole.run_id, project.tracker)
    assert "search.timeout" not in capsys.readouterr().out
    assert "search.timeout is over" not in project.tracker.read_text(result.run_id, Artifact.REPORT)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "search.space.train.warmup_epochs={low = 0, high = 3}",
            "train.warmup_epochs = 3: does not end within train.epochs = 3",
        ),
        ("search.space.model.depth=[8, 17]", "17"),
        ('search.space."model.depth"=[18, 19]', "^model.depth = 19: no ResNet has this depth; did you mean 18?"),
        ("search.space.augment.hue=[0.0, 0.1]", "augment.hue = 0.1: needs 3 channels, and these images have 1"),
        (
            "search.space.train.label_smoothing={low = 0.0, high = 1.5}",
            "label_smoothing.high = 1.5: must be less than 1.0",
        ),
        (
            "search.space.train.weight_decay={low = 0.0, high = 0.1, step = 0.02}",
            r"train.weight_decay = 0.05 lies outside .*: between 0.04 and 0.06",
        ),
        ("search.space.train.epochs={low = 1, high = 3}", "warmup_epochs = 1: does not end within train.epochs = 1"),
        ("search.space.model.depth={low = 8, high = 20, step = 3}", "11"),
        ("search.space.train.seed={low = 0, high = 9007199254740994}", r"must end at 2\^53 or before"),
    ],
)
def test_a_space_that_holds_impossible_values_is_refused_before_the_first_trial(project, override, message):
    with pytest.raises(ConfigError, match=message):
        sweep(project, override)
    assert project.runs() == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("search.space.train.epochs=[2, 5]", "search.space.train.warmup_epochs=[0, 1, 3]", "train.epochs=5"),
            "train.warmup_epochs = 3: does not end within train.epochs = 2",
        ),
        (
            ("search.space.model.depth=[8, 18]", 'search.space.model.stem=["small", "standard"]', "model.depth=18"),
            "model.depth = 8 with model.stem = 'standard' is impossible",
        ),
    ],
)
def test_values_that_rule_each_other_out_are_refused_before_the_first_trial(project, overrides, message):
    with pytest.raises(ConfigError, match=message):
        sweep(project, *overrides)
    assert project.runs() == []


def test_of_two_wide_ranges_the_corners_are_tried_and_a_sweep_begins_in_seconds(project):
    wide = "{ low = 8, high = 200 }"
    experiment = project.experiment(f"search.space.model.width={wide}", f"search.space.data.image_size={wide}")
    keys = {"model.width", "data.image_size"}
    pairs = [tuple(pair.values()) for pair in _pairs_of_values(experiment) if pair.keys() == keys]
    assert pairs == [(8, 8), (8, 200), (200, 8), (200, 200)]


@pytest.mark.slow
def test_a_value_has_the_same_decimals_wherever_it_is_recorded(project):
    result = sweep(
        project, *QUICK, 'search.sampler="grid"', "train.label_smoothing=0.3", "search.space.train.lr=[0.02]",
        "search.space.train.label_smoothing={ low = 0.0, high = 0.3, step = 0.1 }",
    )  # fmt: skip
    key, written = "train.label_smoothing", ["0.3", "0.0", "0.1"]  # of four combinations, search.trials = 3 are run
    run_ids = [record.run_id for record in project.tracker.children(result.run_id, "trial")]
    trials = [project.client.get_run(run_id).data for run_id in run_ids]
    assert [trial.params[key] for trial in trials] == written
    assert [re.search(rf"{key} = ([\d.]+)", trial.tags["imgcls.values"])[1] for trial in trials] == written
    configs = [tomllib.loads(project.tracker.read_text(run_id, "config.toml")) for run_id in run_ids]
    assert [str(config["train"]["label_smoothing"]) for config in configs] == written
    board = pd.read_csv(io.StringIO(project.tracker.read_text(result.run_id, "report/leaderboard.csv")), dtype=str)
    assert board.sort_values("trial")[key].tolist() == written
    (journal,) = (project.root / "mlruns" / ".studies").glob("*.journal")
    assert set(re.findall(rf'"{key}": ?([\d.]+)', journal.read_text())) == set(written)


def study_of(project, *overrides):
    """The study of a sweep of these settings, which begins here if it has not begun."""
    made = Sweep(project.experiment(*overrides), project.tracker)
    with made._parent_run() as run:
        return made.study(run.run_id).optuna


@pytest.mark.slow
def test_values_that_somebody_enqueued_and_the_space_lacks_fail_with_words_and_the_sweep_goes_on(project, caplog):
    settings = (*QUICK, "search.trials=4", "search.space.train.lr={ low = 0.01, high = 0.08, step = 0.01 }")
    study = study_of(project, *settings)
    own = {"train.lr": 0.02, "train.warmup_epochs": 0, "model.depth": 8}
    study.enqueue_trial(own)
    study.enqueue_trial(own | {"train.lr": 0.025})
    study.enqueue_trial(own | {"train.lr": 0.01 + 6 * 0.01})  # as a version of before wrote it
    assert study.trials[2].system_attrs["fixed_params"]["train.lr"] != 0.07
    result = sweep(project, *settings)
    board = result.leaderboard.sort_values("trial")
    assert board["outcome"].tolist() == ["completed", "failed", "completed", "completed"]
    assert board["train.lr"].tolist()[2] == 0.07
    assert (
        "trial 1 failed: search.space: train.lr = 0.025 is not in its search.space (0.01 to 0.08, step 0.01)"
        in caplog.text
    )


@pytest.mark.slow
def test_a_trial_begun_with_an_impossible_value_ends_and_the_sweep_goes_on(project):
    settings = (*QUICK, "search.space.train.lr=[0.02]", "train.label_smoothing=0.5")
    settings += ("search.space.train.label_smoothing={ low = 0.0, high = 0.9, step = 0.1 }",)
    study = study_of(project, *settings)
    own = {"train.lr": 0.02, "train.warmup_epochs": 0, "model.depth": 8}
    for smoothing in (1.0000000000000002, 0.05):  # one that the key refuses, and one that the space alone lacks
        study.enqueue_trial(own | {"train.label_smoothing": smoothing})
        with pytest.warns(UserWarning, match="out of range"):
            suggest(study.ask(), project.experiment(*settings).search.space)
    board = sweep(project, *settings).leaderboard.sort_values("trial")
    assert board["outcome"].tolist() == ["failed", "completed", "completed"]


def test_without_a_search_space_there_is_nothing_to_sweep(project):
    (project.root / "experiments" / "tiny.toml").write_text('[data]\nsource = "digits"\n')
    with pytest.raises(ConfigError, match=r"no \[search.space\]"):
        sweep(project)


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_runs_again_and_one_that_loses_its_worker_twice_fails(project, monkeypatch):
    submit, killed = LocalProcesses.submit, []

    def submit_and_kill(self, job):
        submit(self, job)
        worker = next(worker for worker in self._workers if worker.job is job)
        if job.number == 1 and 1 not in killed:
            while not project.runs(kind="trial", trial="1"):  # it has begun its record
                assert not wait([worker.process.sentinel], timeout=0.05), "the worker ended"
            worker.process.kill()
            killed.append(1)
        elif job.number == 2:
            worker.process.kill()
            killed.append(2)

    monkeypatch.setattr(LocalProcesses, "submit", submit_and_kill)
    result = sweep(project, "search.trials=4", "search.workers=2", "train.epochs=20", 'search.pruner="none"')
    assert sorted(killed) == [1, 2, 2]
    outcomes = dict(zip(result.leaderboard["trial"], result.leaderboard["outcome"], strict=True))
    assert outcomes == {0: "completed", 1: "completed", 2: "failed", 3: "completed"}
    assert not [r for r in project.runs(kind="trial") if r.status == "RUNNING"]
    (again,) = project.runs(kind="trial", trial="1")
    assert (again.status, again.outcome, again.num_losses) == ("FINISHED", "completed", 1)
    assert [step for step, _ in project.tracker.history(again.run_id, "val/loss")] == list(range(1, 21))
