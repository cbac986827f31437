"""The shell interface, as other programs use it: exit codes, stdout and stderr, of real processes where it matters."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from imgcls.cli import app
from imgcls.errors import InputError
from tests.shell import typed

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # processes that import torch and MLflow, and whole sweeps


def imgcls(project, *arguments, program=("-m", "imgcls")):
    return subprocess.run(
        [sys.executable, *program, *arguments], cwd=project.root, capture_output=True, text=True, check=False
    )


def test_train_then_evaluate_speak_json_on_stdout_and_progress_on_stderr(project):
    trained = imgcls(project, "train", "tiny", "--json", "--set", "train.epochs=2")
    assert trained.returncode == 0, trained.stderr
    facts = json.loads(trained.stdout)
    record = project.tracker.get(facts["run_id"])
    assert facts["best/val/accuracy"] == record.metrics["best/val/accuracy"]
    assert "epoch   2/2" in trained.stderr
    judged = imgcls(project, "--run-id", facts["run_id"], "--json", program=(str(ROOT / "evaluate.py"),))
    assert judged.returncode == 0, judged.stderr
    scores = json.loads(judged.stdout)
    assert all(isinstance(value, (int, float, str)) for value in scores.values())
    assert scores["test/accuracy"] == project.tracker.get(scores["run_id"]).metrics["test/accuracy"]
    assert scores["imgcls.test_look"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "tinny"), "did you mean 'tiny'"),
        (("train", "tiny", "--set", "train.epocs=3"), "did you mean 'train.epochs'"),
        (("train", "tiny", "--set", "model.depth=17"), "17"),
        (("train", "tiny", "--set", 'data.source="elpw"'), "elpw"),
        (("evaluate", "--run-id", "nonsense"), "no run 'nonsense'"),
        (("compare", "nonsense", "other"), "no run 'nonsense'"),
        (("confirm", "nonsense"), "no run 'nonsense'"),
        (("confirm", "nonsense", "--seeds", "0"), "--seeds"),
        (("rerun", "nonsense", "--verify"), "no run 'nonsense'"),
        (("models", "resnit"), "resnet"),
        (("sweep", "tiny", "--trials", "0"), "greater than or equal to 1"),
    ],
)
def test_wrong_input_is_one_error_with_a_remedy_and_exit_code_2(project, arguments, message):
    done = typed(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert project.runs() == []


def test_a_wrong_name_ends_a_process_with_exit_code_2(project):
    done = imgcls(project, "train", "tinny")
    assert (done.returncode, done.stdout) == (2, "") and "did you mean 'tiny'" in done.stderr


@pytest.mark.usefixtures("project")
def test_a_run_that_fails_while_running_has_exit_code_1():
    done = typed("train", "tiny", "--set", "train.lr=1e30", "--set", "train.warmup_epochs=0")
    assert done.returncode == 1
    assert "error: the loss is" in done.stderr
    assert "Traceback" not in done.stderr


def test_sweep_evaluate_and_confirm_end_with_the_winner_the_places_and_the_next_verb(project):
    def said(*arguments):
        done = CliRunner().invoke(app, arguments)
        assert done.exception is None, done.exception
        return done.stdout

    quick = [part for key in ("train.epochs=2", "train.warmup_epochs=0") for part in ("--set", key)]
    shown = said("sweep", "tiny", "--trials", "2", *quick)
    sweep_id = re.search(r"Sweep +(\w{32})", shown)[1]
    assert f"imgcls confirm {sweep_id}" in shown
    confirmed = said("confirm", sweep_id, "--seeds", "1", "--top", "1")
    assert "imgcls confirm" not in confirmed and "(one seed, no interval)" in confirmed
    facts = json.loads(said("confirm", sweep_id, "--seeds", "1", "--top", "1", "--json"))
    judged = said("evaluate", sweep_id)
    assert f"Run {facts['imgcls.best_run_id']}" in judged and len(judged.splitlines()) < 28
    assert "loss (nats), with temperature" in judged
    assert f"imgcls rerun {facts['imgcls.best_run_id']} --verify" in judged
    for text in (shown, confirmed, judged):
        assert (project.root / re.search(r"Report +(\S+)", text)[1]).is_file()
        assert (project.root / re.search(r"Weights +(\S+)", text)[1]).is_file()
        assert re.search("UI +mlflow ui\n", text)
        assert re.search(r"Page +http://127\.0\.0\.1:5000/#/experiments/1/runs\S*workflowType=machine_learning", text)
    winner_then = project.client.get_run(sweep_id).data.tags["imgcls.best_trial_run_id"]
    for verb in ("evaluate", "predict", "export", "register"):
        assert f"imgcls {verb} {winner_then[:8]}" in shown
    assert f"imgcls ui {sweep_id}" in shown
    # `best` would be another run after the next sweep.
    assert "best" not in " ".join(re.findall("imgcls [a-z]+ .*", shown)) and "evaluate.py" not in shown
    assert json.loads(said("sweep", "tiny", "--trials", "2", "--json", *quick)) == facts
    winner = project.client.get_run(facts["imgcls.best_run_id"]).data.metrics
    stored = {"best/epoch": "best_epoch", "best/val/accuracy": "val/accuracy_best", "best/val/loss": "val/loss_best"}
    assert all(facts[name] == winner[spelled] for name, spelled in stored.items())


def test_compare_prints_markdown_or_one_flat_object_and_writes_a_page(project):
    first, second = (project.train("train.epochs=2", f"train.seed={seed}").run_id for seed in (0, 1))
    done = typed("compare", first, second, "--json", "--html", "comparison.html")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert all(isinstance(value, (int, float, str)) for value in facts.values())
    assert facts["val/accuracy_difference_low"] <= facts["val/accuracy_difference"]
    assert 0 <= facts["val/mcnemar_p"] <= 1
    page = (project.root / "comparison.html").read_text()
    assert second in page
    assert "data:image/png;base64," in page
    assert CliRunner().invoke(app, ["compare", first, second]).stdout.startswith("# Comparison of 2 runs\n")
    nowhere = CliRunner().invoke(app, ["compare", first, second, "--html", "nowhere/comparison.html"])
    assert isinstance(nowhere.exception, InputError)
    assert "nowhere/comparison.html cannot be written: No such file or directory" in str(nowhere.exception)


SCORE = r"0\.\d\d? \(0\.\d\d? to (0\.\d\d?|1\.0)\)"
"""So few images support one digit, or two."""


def test_wherever_a_score_is_shown_its_interval_and_its_leaks_are(project, leaky):
    def said(*arguments):
        done = CliRunner().invoke(app, arguments)
        assert done.exception is None, done.exception
        assert "stand in train or val, pixel by pixel" in done.stdout
        return done.stdout

    settings = [part for key in (*leaky, "train.epochs=2", "data.allow_leaks=true") for part in ("--set", key)]
    assert re.search(rf"best/val/accuracy +{SCORE}", said("train", "tiny", *settings))
    sweep = said("sweep", "tiny", "--trials", "2", *settings, "--set", "search.confirm.seeds=1")
    assert re.search(rf"completed +{SCORE}", sweep) and "Optimism" in sweep
    run_id = re.search("Sweep +([0-9a-f]{32})", sweep)[1]
    assert re.search(r"confirm|Optimism -?\d", said("confirm", run_id, "--top", "2", "--seeds", "1"))
    assert re.search(SCORE, said("evaluate", "--run-id", run_id))
    _, *listed = said("runs").splitlines()
    assert len(listed) == 7  # one of train, the sweep with two trials, two confirmed, one judged
    assert all(re.search(rf"(val|test)/accuracy {SCORE}\. Splits leak: ", line) for line in listed)
    assert "Splits leak: 1 of 9 test images" in CliRunner().invoke(app, ["ledger"]).stdout
    judged = project.runs(kind="evaluation")
    for record in [*judged, *project.runs(kind="confirm"), *project.runs(kind="sweep")]:
        assert "pixel by pixel" in record.tags["imgcls.leaks"]
        assert "pixel by pixel" in project.client.get_run(record.run_id).data.tags["mlflow.note.content"]
    shown = {artifact.path for artifact in project.client.list_artifacts(run_id, "figures")}
    assert "figures/near_duplicates.png" in shown


@pytest.mark.usefixtures("project")
def test_an_empty_ledger_says_so():
    done = typed("ledger")
    assert (done.returncode, done.stdout) == (0, "no test split was ever opened in this store\n")


def test_outside_the_environment_evaluate_says_how_to_enter_it(project):
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(ROOT / "evaluate.py"), "--run-id", "x"],
        cwd=project.root, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "make setup" in done.stderr
    assert ". .venv/bin/activate" in done.stderr


def test_relative_paths_start_at_the_root_of_the_experiment_file(project, monkeypatch, tmp_path):
    """Two clones never share a store: the experiment's own root decides, not the working directory."""
    path = project.root / "experiments" / "tiny.toml"
    monkeypatch.chdir(tmp_path)
    done = typed("train", str(path), "--json", "--set", "train.epochs=2")
    assert done.returncode == 0, done.stderr
    assert project.tracker.get(json.loads(done.stdout)["run_id"]).outcome == "completed"
    assert not (tmp_path / "mlflow.db").exists()


def test_models_lists_and_shows():
    listed = typed("models")
    assert listed.returncode == 0
    for name in ("resnet", "resnet32", "random-encoder", "torchvision:resnet18"):
        assert any(line.startswith(name + " ") for line in listed.stdout.splitlines()), name
    shown = json.loads(typed("models", "torchvision:resnet18", "--image-size", "224", "--json").stdout)
    assert shown["num_parameters"] == 11_689_512  # torchvision's own table
    refused = typed("models", "resnet", "--channels", "2")
    assert (refused.returncode, refused.stdout) == (2, "") and "1 channel (grey) or 3 (RGB)" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["runs", "nonsense"], "no runs of an experiment 'nonsense' in this store; experiments with runs: none"),
        (["runs", "--limit", "0"], "--limit"),
        (["keys", "nonsense"], "no key begins with 'nonsense'"),
        (["doctor", "--nonsense"], "No such option: --nonsense"),
        (["models", "resnet34x"], "resnet34x"),
    ],
)
@pytest.mark.usefixtures("project")
def test_wrong_input_is_refused_in_one_message(arguments, why):
    done = typed(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_cache_lists_what_is_kept_and_makes_room(project, monkeypatch, tmp_path):
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path))
    assert f"{tmp_path}: 0B of " in typed("cache").stdout
    project.train("train.epochs=1", "train.warmup_epochs=0")
    listed = typed("cache").stdout.splitlines()
    assert any("8 x 8 x 1" in line and "used 2" in line for line in listed) and "entries" in listed[-1]
    assert all(" UTC  " in line for line in listed[:-1])
    refused = typed("cache", "--prune", "much")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--prune = 'much' is not a size" in refused.stderr
    assert "removed" in typed("cache", "--prune", "0").stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "arguments", "first", "said"),
    [
        (
            "evaluate", ["best"], "open_tracker",
            "the look may be recorded already: imgcls ledger; to begin again: imgcls evaluate best",
        ),
        ("ledger", [], "open_tracker", "left at once; to begin again: imgcls ledger"),
        ("worker", ["tiny"], "read_experiment", "left at once; to go on from what was saved: imgcls worker tiny"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("project")
def test_ctrl_c_promises_nothing_that_is_not_known(verb, arguments, first, said, monkeypatch):
    module = sys.modules[f"imgcls.cli.{verb}"]
    monkeypatch.setattr(module, first, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(sys, "argv", ["imgcls", verb, *arguments])
    done = CliRunner().invoke(app, [verb, *arguments])
    assert done.exit_code == 130 and said in done.stderr and "nothing was saved" not in done.stderr
