"""Records `project.tar.xz`: a small project of before records had `imgcls.squares` and `imgcls.loss`.

It was run once, with the package of commit dca6218 (2026-11-25, torch 2.14.1, Pillow 13.0.0, an Intel Xeon):

    git worktree add /tmp/imgcls-then dca6218
    PYTHONPATH=/tmp/imgcls-then IMGCLS_CACHE=/tmp/project-cache OMP_NUM_THREADS=1 python tests/earlier/record.py

What it leaves, beside the images and the experiments:

    photos      a completed run whose crops made train larger, so that val was resized twice; judged on test
    stopped     the same, stopped in its second epoch
    search      a sweep of two trials over such images; and `searching`, one stopped in its second trial
    weighted    digits with class weights and label smoothing; and `weighing`, the same, stopped
    squares.npz the images of val and test as the model saw them (oracle)
"""

import getpass
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from imgcls.config.load import load_experiment
from imgcls.data.held_out import Look
from imgcls.errors import Interrupted
from imgcls.evaluation.judge import evaluate
from imgcls.project import Project
from imgcls.runs.prepare import prepare
from imgcls.runs.train import train_run
from imgcls.search.sweep import Sweep
from imgcls.tracking.store import Tracker
from tests.stops import StopAfter

ROOT = Path("/tmp/project")
HERE = Path(__file__).parent

COMMON = """
[model]
depth = 8
width = 4

[train]
epochs = 2
batch_size = 16
lr = 2e-2
threads = 1
device = "cpu"
"""

PHOTOS = """
[data]
source = "folder"
path = "images"
image_size = 16
val_fraction = 0.3

[augment]
random_resized_crop = [0.25, 1.0]
"""

SPACE = """
[search]
trials = 2
sampler = "random"

[search.space]
"train.lr" = { low = 1e-3, high = 3e-2, log = true }
"""

DIGITS = """
[data]
source = "digits"
image_size = 8
"""

WEIGHTS = COMMON.replace("batch_size = 16", 'batch_size = 256\nclass_weights = "auto"\nlabel_smoothing = 0.05')

EXPERIMENTS = {
    "photos": PHOTOS + COMMON,
    "stopped": PHOTOS + COMMON,
    "search": PHOTOS + COMMON + SPACE,
    "searching": PHOTOS + COMMON + SPACE,
    "weighted": DIGITS + WEIGHTS,
    "weighing": DIGITS + WEIGHTS,
}


def main():
    socket.gethostname, getpass.getuser = lambda: "example", lambda: "user"
    shutil.rmtree(ROOT, ignore_errors=True)
    (ROOT / "experiments").mkdir(parents=True)
    os.chdir(ROOT)
    for name, text in EXPERIMENTS.items():
        (ROOT / "experiments" / f"{name}.toml").write_text(text.lstrip())
    write_images()
    tracker = Tracker(ROOT)
    for name in ("photos", "weighted"):
        train(name, tracker)
    (photos,) = tracker.find({}, experiment="photos")
    evaluate(photos.run_id, tracker)
    for name, num_steps in (("stopped", 5), ("weighing", 7)):
        stopped(partial(train, name, tracker), num_steps)
    Sweep(experiment("search"), tracker).run()
    stopped(Sweep(experiment("searching"), tracker).run, 14)
    write_squares()
    pack(tracker)


def experiment(name):
    return load_experiment(ROOT / "experiments" / f"{name}.toml")


def train(name, tracker):
    train_run(prepare(experiment(name), Project(ROOT)), tracker, kind="train", name=name)


def stopped(work, num_steps):
    try:
        with StopAfter(num_steps):
            work()
    except Interrupted:
        return
    raise AssertionError("it was to be stopped")


def write_images():
    """Two classes of tall and wide JPEGs with fine and coarse detail, 40 each."""
    for label, kind in enumerate(("fine", "coarse")):
        folder = ROOT / "images" / kind
        folder.mkdir(parents=True)
        for i in range(40):
            draws = np.random.default_rng([label, i])
            size = (72, 48) if i % 2 else (45, 60)
            grid = (24, 18) if label == 0 else (9, 7)
            coarse = Image.fromarray(draws.integers(0, 256, (grid[1], grid[0], 3), np.uint8))
            coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:02d}.jpg", quality=80)


def write_squares():
    dataset = prepare(experiment("photos"), Project(ROOT)).dataset
    test = dataset.test.open(Look("the fixture", 1, lambda: True))
    np.savez_compressed(
        ROOT / "squares.npz",
        val=dataset.val.pixels, val_keys=dataset.val.keys, test=test.pixels, test_keys=test.keys,
        mean=dataset.mean, std=dataset.std,
    )  # fmt: skip


def pack(tracker):
    """The project without what no test reads: figures, pages, last checkpoints of what has ended."""
    for record in tracker.find({}, with_deleted=True):
        for path in (*record.folder.glob("figures/*"), *record.folder.glob("report/*.html")):
            path.unlink()
        if record.outcome == "completed":
            (record.folder / "checkpoints" / "last.pt").unlink(missing_ok=True)
    tracker._client._tracking_client.store.engine.dispose()
    with sqlite3.connect(ROOT / "mlflow.db") as database:
        database.execute("PRAGMA journal_mode=DELETE")
        database.execute("VACUUM")
    subprocess.run(
        ["tar", "-cJf", str(HERE / "project.tar.xz"), "-C", str(ROOT), "--owner=0", "--group=0", "."], check=True
    )
    sys.stdout.write(f"{(HERE / 'project.tar.xz').stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
