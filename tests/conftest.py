"""Real stores, real images: a project of its own for each test that wants one."""

import contextlib
import functools
import gc
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import fast_start
from tests.postgres import database, postgresql  # noqa: F401 - fixtures

# What is imported while tests are collected stays to the end: the garbage collector need not look through it.
gc.disable()


FIRST = (
    "search/test_light_workers.py", "search/test_ray.py", "search/test_workers_together.py",
    "deploy/test_operating.py", "runs/test_several_processes.py", "search/test_processes_per_trial.py",
    "search/test_shared_storage.py", "training/test_several.py",
)  # fmt: skip
"""Files of `make test-distributed` in an order that keeps two processes busy to the end; each takes the next one."""


def pytest_collection_modifyitems(items):
    order = {f"tests/{path}": number for number, path in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.location[0], len(FIRST)))


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


# A shell has its background jobs ignore Ctrl-C, and nohup SIGHUP; whatever the tests start there would ignore them too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

TINY = """
name = "tiny"

[data]
source = "digits"
image_size = 8

[model]
depth = 8
width = 8

[augment]
horizontal_flip = false

[train]
epochs = 3
batch_size = 256
lr = 2e-2
threads = 1
device = "cpu"

[report]
figures = "none"

[search]
trials = 3
workers = 1
pruner_warmup_epochs = 2  # so no trial of three epochs pauses

[search.space]
"train.lr" = { low = 1e-3, high = 3e-2, log = true }
"train.warmup_epochs" = { low = 0, high = 1 }
"model.depth" = [8, 14]
"""


@pytest.fixture(scope="session", autouse=True)
def decoded_images(tmp_path_factory):
    """Decoded images of the whole session; the user's own cache is left alone."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["IMGCLS_CACHE"] = str(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return folder


@pytest.fixture(scope="session", autouse=True)
def coarse_pictures():
    """Pictures of few pixels: thousands are drawn, and as fine as for users they took a tenth of all the time.

    Returns:
        The pixels per inch that pictures have otherwise.
    """
    from imgcls.reporting import drawing

    otherwise, drawing.DOTS_PER_INCH = drawing.DOTS_PER_INCH, 60
    return otherwise


@pytest.fixture(scope="session", autouse=True)
def activated():
    """The tests run as in a shell with the environment activated: MLflow looks on PATH for the web server it starts."""
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([programs, *os.environ.get("PATH", "").split(os.pathsep)])


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An empty MLflow store, made once because making one takes seconds."""
    from imgcls.tracking.store import Tracker

    root = tmp_path_factory.mktemp("store")
    Tracker(root)
    return root / "mlflow.db"


@functools.cache
def _opened(root, _address, _inode):
    from imgcls.tracking.store import Tracker

    return Tracker(root)


@functools.cache
def _client(address):
    from mlflow.tracking import MlflowClient

    return MlflowClient(address)


@dataclass
class Project:
    """A project's root with `experiments/tiny.toml` and a store.

    Attributes:
        root: the folder.
        finished: with overrides, gives another project with a finished run, and the id of that run.
    """

    root: Path
    finished: Callable[..., tuple["Project", str]] | None = None

    @property
    def tracker(self):
        """The store that the environment names now, opened once."""
        store = self.root / "mlflow.db"
        return _opened(self.root, os.environ.get("MLFLOW_TRACKING_URI"), store.stat().st_ino if store.exists() else 0)

    @property
    def client(self):
        """MLflow's own client: what we wrote is read back through it."""
        return _client(f"sqlite:///{self.root / 'mlflow.db'}")

    def experiment(self, *overrides):
        from imgcls.config.load import load_experiment

        return load_experiment(self.root / "experiments" / "tiny.toml", overrides)

    def prepare(self, *overrides):
        from imgcls import project
        from imgcls.runs.prepare import prepare

        return prepare(self.experiment(*overrides), project.Project(self.root))

    def train(self, *overrides, **options):
        from imgcls.runs.train import train_run

        arguments = {"kind": "train", "name": "tiny"} | options
        return train_run(self.prepare(*overrides), self.tracker, **arguments)

    def trained(self, *overrides, judged=False):
        """A finished run, for tests of what follows it: the first run of the project, a copy of one of this session.

        With `judged`, an evaluation of it is there too.
        """
        assert not (self.root / "mlruns").exists()
        kept, run_id = self.finished(*overrides, judged=judged)
        self.become(kept)
        return self.tracker.get(run_id)

    def become(self, kept):
        """Takes over all that is in another project."""
        from imgcls.tracking.mlflow_internals import databases_closed, remember_opened

        store = self.root / "mlflow.db"
        shutil.copytree(kept.root, self.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlflow.db*"))
        remember_opened(store)
        # Not as files: the newest rows may be in SQLite's log, which moves to the database when a connection closes.
        with (
            databases_closed(),
            contextlib.closing(sqlite3.connect(kept.root / "mlflow.db")) as source,
            contextlib.closing(sqlite3.connect(store)) as target,
        ):
            source.backup(target)
        self.tracker.relocate()

    def runs(self, **tags):
        return self.tracker.find({f"imgcls.{key}": value for key, value in tags.items()})


@pytest.fixture(scope="session")
def make_project(tmp_path_factory, empty_store):
    """Makes projects; two of them share nothing but the cache of decoded images."""

    @functools.cache
    def finished(*overrides, judged):
        from imgcls.evaluation.judge import evaluate

        made = make()
        with contextlib.chdir(made.root):
            run_id = made.train(*overrides).run_id
            if judged:
                evaluate(run_id, made.tracker)
        return made, run_id

    def make():
        root = tmp_path_factory.mktemp("project")
        (root / "experiments").mkdir()
        (root / "experiments" / "tiny.toml").write_text(TINY)
        shutil.copy(empty_store, root / "mlflow.db")
        return Project(root, finished)

    return make


@pytest.fixture
def project(make_project, monkeypatch):
    made = make_project()
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture(scope="session")
def _shop(make_project):
    from tests.photographs import QUICK, Shop, write_photographs

    made = make_project()
    write_photographs(made.root / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.root)
        return Shop(made, made.train(*QUICK).run_id)


@pytest.fixture
def shop(_shop, monkeypatch):
    """A finished run on photographs, which tests predict and do not change."""
    monkeypatch.chdir(_shop.project.root)
    return _shop


@pytest.fixture(scope="session")
def onnx_file(_shop, tmp_path_factory):
    """The run of `shop` as ONNX, exported once by the command, for that takes long: its `path` and what was `said`."""
    path = tmp_path_factory.mktemp("exported") / "shop.onnx"
    command = [sys.executable, "-m", "imgcls", "export", _shop.run_id, "--output", str(path), "--json"]
    said = fast_start.run(command, cwd=_shop.project.root, capture_output=True, text=True, check=True)
    return SimpleNamespace(path=path, said=said)


@pytest.fixture
def leaky(project):
    """A project whose images leak from train to test, and nearly from train to val; gives the settings to read them."""
    from tests.data.make import noise, picture, write, write_class

    for start, split in ((0, "train"), (100, "val"), (200, "test")):
        for label, kind in enumerate(("cat", "dog")):
            write_class(project.root / "images" / split / kind, range(start + 10 * label, start + 10 * label + 4))
    write(project.root / "images" / "test" / "cat" / "copy.bmp", noise(0))
    write(project.root / "images" / "train" / "cat" / "one.png", picture(0))
    write(project.root / "images" / "val" / "cat" / "saved again.jpg", picture(0), quality=90)
    return "data.source=folder", "data.path=images", "train.epochs=1", "train.warmup_epochs=0"


@contextlib.contextmanager
def refusing_the_test_split():
    """Whatever opens the test split in this block fails."""
    from imgcls.data.held_out import HeldOut

    def refuse(*_):
        raise AssertionError("the test split was opened")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeldOut, "open", refuse)
        yield


@pytest.fixture
def no_test_split():
    """Whatever opens the test split fails."""
    with refusing_the_test_split():
        yield
