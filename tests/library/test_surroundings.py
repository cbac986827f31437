"""What a call of the library finds in the process, and what it leaves: nothing that a notebook trips over."""

import io
import logging
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import tomllib
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import matplotlib
import mlflow
import optuna
import pytest
import torch

import imgcls
from imgcls.data.sources.folder import Folder
from imgcls.library.surroundings import as_in_the_shell
from tests.conftest import TINY
from tests.data.make import picture, write_class
from tests.library.test_public_face import python

QUICK = {"train.epochs": 1, "train.warmup_epochs": 0}


def process_state():
    """All that a program may have set in its process, and that imgcls, torch, MLflow or Optuna could change."""
    loggers = {
        name: logging.getLogger(name) for name in (None, "imgcls", "mlflow", "mlflow.store", "alembic", "optuna")
    }
    return {
        # scikit-learn and torch set these when parts of them are imported, for the whole process.
        "environment": [item for item in os.environ.items() if not item[0].startswith(("KMP_", "TORCHINDUCTOR_"))],
        "folder": os.getcwd(),  # noqa: PTH109
        "logging": {name: (logger.level, *logger.handlers) for name, logger in loggers.items()},
        "log records": logging.getLogRecordFactory(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "warnings": list(warnings.filters),
        "threads": torch.get_num_threads(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "filled": torch.utils.deterministic.fill_uninitialized_memory,
        "benchmark": torch.backends.cudnn.benchmark,
        "random": (torch.random.get_rng_state().tolist(), random.getstate()),
        "MLflow's store": (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.active_run()),
        "Optuna": optuna.logging.get_verbosity(),
        "Matplotlib": dict.__getitem__(matplotlib.rcParams, "backend"),
    }


FIRST = """
import random, warnings

random.seed(3)
warnings.simplefilter("always")
before = random.getstate(), list(warnings.filters)
import imgcls
imgcls.Classifier
imgcls.list_runs()
assert list(warnings.filters) == before[1], warnings.filters
assert random.getstate() == before[0]
"""


@pytest.mark.slow
def test_a_first_use_which_imports_libraries_leaves_warnings_and_random_numbers_alone(tmp_path):
    python(FIRST, tmp_path)


def test_overlapping_calls_of_two_threads_leave_the_process_as_it_was():
    """The second begins while the first goes on, and ends after it."""
    mlflow.set_tracking_uri("sqlite:///own.db")
    has_begun, may_end = threading.Event(), threading.Event()

    def second():
        with as_in_the_shell():
            has_begun.set()
            assert may_end.wait(60)

    try:
        before, filters = os.environ["MLFLOW_TRACKING_URI"], list(warnings.filters)
        with ThreadPoolExecutor() as threads:
            with as_in_the_shell():
                done = threads.submit(second)
                assert has_begun.wait(60)
            is_kept = "MLFLOW_TRACKING_URI" not in os.environ
            may_end.set()
            done.result()
        assert is_kept
        assert (os.environ["MLFLOW_TRACKING_URI"], list(warnings.filters)) == (before, filters)
    finally:
        mlflow.set_tracking_uri(None)


def open_files():
    for number in Path("/proc/self/fd").iterdir():
        try:
            yield str(number.readlink())
        except OSError:  # that of the listing itself
            continue


@pytest.mark.parametrize("call", ["train", "sweep", "evaluate", "predict"])
@pytest.mark.slow
def test_a_call_leaves_the_process_as_it_was(project, call, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    threads, drawn = torch.get_num_threads(), torch.random.get_rng_state()
    torch.set_num_threads(2)
    torch.manual_seed(3)
    if call in ("evaluate", "predict"):
        project.trained(*(f"{key}={value}" for key, value in QUICK.items()))
        model = imgcls.load_model("last")
    optuna.logging.set_verbosity(optuna.logging.INFO)
    before = process_state()
    try:
        if call == "evaluate":
            imgcls.evaluate("last")
        elif call == "predict":
            assert len(model.predict(picture(0))) == 1
        else:
            getattr(imgcls, call)("tiny", **QUICK, search={"trials": 1, "space": {"train.lr": [2e-2]}})
        after = process_state()
        changed = {name for name in after if after[name] != before[name]}
        assert not {name: set(map(str, after[name])) ^ set(map(str, before[name])) for name in changed}
        assert not [file for file in open_files() if str(project.root) in file]
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(drawn)
    assert project.runs(outcome="completed")


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "used"), [(0, 2), (1, 1)])
def test_the_threads_that_nobody_asks_for_are_those_of_the_program(project, asked, used):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run = imgcls.train("tiny", **QUICK, **{"train.threads": asked})
    finally:
        torch.set_num_threads(before)
    assert project.client.get_run(run.run_id).data.params["train.threads"] == str(used)


# --- what an earlier call read ------------------------------------------------------------------------------------


def test_images_that_change_between_two_calls_are_seen(project):
    for label, name in enumerate(("cat", "dog")):
        write_class(project.root / "images" / name, range(20 * label, 20 * label + 20))
    own = {"data": {"source": "folder", "path": "images"}, **QUICK}
    first = imgcls.train("tiny", **own)
    shutil.rmtree(project.root / "images" / "dog")
    write_class(project.root / "images" / "cow", range(40, 70))
    second = imgcls.train("tiny", **own)
    prints = {project.client.get_run(run.run_id).data.tags["imgcls.data_fingerprint"] for run in (first, second)}
    assert len(prints) == 2
    with pytest.raises(imgcls.errors.DataError, match="the data changed"):
        imgcls.evaluate(first)


def test_a_sweep_of_one_call_reads_its_images_once(project, monkeypatch):
    opened = []
    whole = Folder.open
    monkeypatch.setattr(Folder, "open", lambda *args: (opened.append(args), whole(*args))[1])
    for label, name in enumerate(("cat", "dog")):
        write_class(project.root / "images" / name, range(20 * label, 20 * label + 20))
    imgcls.sweep(
        "tiny", data={"source": "folder", "path": "images"}, **QUICK,
        search={"trials": 2, "space": {"train.lr": [1e-2, 2e-2]}},
    )  # fmt: skip
    assert len(opened) == 1


@pytest.mark.slow
def test_a_store_that_was_removed_is_made_again_and_one_that_was_replaced_is_read(project, empty_store):
    imgcls.train("tiny", **QUICK)
    kept = project.root / "kept.db"
    shutil.move(project.root / "mlflow.db", kept)
    shutil.copy(empty_store, project.root / "mlflow.db")
    assert imgcls.list_runs().empty
    imgcls.sweep("tiny", **QUICK, search={"trials": 1, "space": {"train.lr": [2e-2]}})
    with closing(sqlite3.connect(project.root / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)


@pytest.mark.slow
def test_the_store_is_the_one_that_the_environment_names_now(project, empty_store, monkeypatch):
    imgcls.sweep("tiny", **QUICK, search={"trials": 1, "space": {"train.lr": [2e-2]}})
    other = shutil.copy(empty_store, project.root / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    imgcls.sweep("tiny", **QUICK, **{"train.seed": 1}, search={"trials": 1, "space": {"train.lr": [2e-2]}})
    with closing(sqlite3.connect(other)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)
    assert len(imgcls.list_runs()) == 2
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert len(imgcls.list_runs()) == 2


# --- the user's own MLflow session --------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path, empty_store):
    """The user's own store, with a run that is active."""
    own = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'own.db')}"
    mlflow.set_tracking_uri(own)
    try:
        with mlflow.start_run() as active:
            yield own, active
    finally:
        mlflow.set_tracking_uri(None)


def test_the_own_session_of_mlflow_neither_changes_nor_misleads(project, session, caplog):
    """`mlflow.set_tracking_uri` leaves its address in the environment."""
    own, active = session
    assert os.environ["MLFLOW_TRACKING_URI"] == own
    with caplog.at_level(logging.INFO, "imgcls"):
        run = imgcls.train("tiny", **QUICK)
    assert "is left to your own runs" in caplog.text
    assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == own
    assert mlflow.active_run().info.run_id == active.info.run_id
    assert [found.info.run_id for found in mlflow.search_runs(output_format="list")] == [active.info.run_id]
    assert [record.info.run_id for record in project.client.search_runs(["1"])] == [run.run_id]
    assert "mlflow.parentRunId" not in project.client.get_run(run.run_id).data.tags


@pytest.mark.slow
def test_workers_do_not_inherit_the_store_of_the_own_session(project, session):
    own, active = session
    search = {"trials": 2, "workers": 2, "space": {"train.lr": [1e-2, 2e-2]}}
    imgcls.sweep("tiny", **QUICK, search=search)
    assert os.environ["MLFLOW_TRACKING_URI"] == own
    assert [found.info.run_id for found in mlflow.search_runs(output_format="list")] == [active.info.run_id]
    assert len(project.client.search_runs(["1"])) == 3


# --- Ctrl-C -------------------------------------------------------------------------------------------------------


class PressesCtrlC(io.StringIO):
    """A stderr at which somebody presses Ctrl-C so many times when the first epoch shows."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    def write(self, text):
        while "epoch   1/" in text and self.left:
            self.left -= 1
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)


@pytest.mark.parametrize(("times", "error"), [(1, imgcls.errors.Interrupted), (2, KeyboardInterrupt)])
def test_ctrl_c_stops_a_call_and_the_same_call_goes_on(project, monkeypatch, times, error):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", PressesCtrlC(times))
        with pytest.raises(error):
            imgcls.train("tiny")
    assert signal.getsignal(signal.SIGINT) is before
    (stopped,) = project.runs()
    assert stopped.outcome == "interrupted"
    run = imgcls.train("tiny")
    assert run.run_id == stopped.run_id
    assert [record.outcome for record in project.runs()] == ["completed"]


@pytest.mark.usefixtures("project")
def test_a_store_that_is_gone_is_not_opened_again(make_project):
    """MLflow keeps a hundred stores; of one that it has forgotten, nobody asks it again."""
    other = make_project()
    assert other.tracker.find({}) == [] and imgcls.list_runs().empty
    shutil.rmtree(other.root)
    registry = mlflow.tracking._tracking_service.utils._tracking_store_registry
    registry._get_store_with_resolved_uri.cache_clear()
    assert imgcls.list_runs().empty and not other.root.exists()


def test_a_call_works_on_another_thread(project):
    results = []
    thread = threading.Thread(target=lambda: results.append(imgcls.train("tiny", **QUICK)))
    thread.start()
    thread.join()
    assert [record.run_id for record in project.runs()] == [results[0].run_id]


# --- what is said -------------------------------------------------------------------------------------------------

SAYS = """
import logging, sys, imgcls
if {configured}:
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="mine: %(message)s")
sys.stderr = sys.stdout
run = imgcls.train({tables}, **{quick})
imgcls.load_model(run).predict("photographs")
print(logging.root.handlers, logging.getLogger("imgcls").handlers)
"""


@pytest.mark.slow
@pytest.mark.parametrize("configured", [False, True])
def test_progress_is_seen_as_in_the_shell(project, configured):
    """Unless the program has set up logging, which is then respected."""
    write_class(project.root / "photographs", range(2))
    (project.root / "photographs" / "notes.txt").touch()
    code = SAYS.format(configured=configured, tables=tomllib.loads(TINY), quick=QUICK)
    *said, handlers = python(code, cwd=project.root).splitlines()
    assert any("tiny epoch   1/1" in line for line in said)
    assert any(line.startswith("digits: 10 classes") for line in said) == (not configured)
    assert ("left out, since they are not images: 1 .txt" in said) == (not configured)
    assert handlers == "[] []" or configured


@pytest.mark.usefixtures("project")
def test_no_error_tells_a_password(monkeypatch):
    """Nor do the errors that it was raised from, which a notebook shows, and keeps."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:22secret/@localhost")
    with pytest.raises(imgcls.errors.InputError) as caught:
        imgcls.list_runs()
    link, texts = caught.value, []
    while link is not None:
        texts.append(str(link))
        link = link.__cause__ or link.__context__
    assert len(texts) > 1
    assert "22secret" not in "".join(texts)


@pytest.mark.slow
def test_a_server_leaves_no_settings_in_the_environment(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with pytest.raises(imgcls.errors.InputError):
        imgcls.list_runs()
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert project.root.is_dir()
