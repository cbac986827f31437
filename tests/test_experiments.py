"""Every experiment loads and runs its first batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgcls.config.load import load_experiment
from imgcls.data import splits
from imgcls.data.sources.packaged import FASHION_FOLDER
from imgcls.project import Project
from imgcls.runs.prepare import prepare
from imgcls.training.loop import fit

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.toml"))


@pytest.fixture
def my_folder(tmp_path):
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = draws.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.jpg")
    return tmp_path


MANY = 2000
"""From so many images on, one of eight is read: to decode them all and to search them for copies takes a minute."""


@pytest.fixture
def one_of_eight(monkeypatch):
    whole = splits.open_source

    def some(images):
        return images.rows(range(0, len(images), 8)) if images is not None and len(images) > MANY else images

    def opened(config, folder):
        source = whole(config, folder)
        given = {split: some(images) for split, images in source.given.items()}
        return replace(source, given=given, everything=some(source.everything))

    monkeypatch.setattr(splits, "open_source", opened)


MOST_AT_ONCE = 16
"""Images of a batch."""

FIRST_BATCHES = [
    # Large networks, and photographs to decode.
    pytest.param(path, id=path.stem, marks=[] if path.stem in ("digits", "my_folder") else [pytest.mark.slow])
    for path in EXPERIMENTS
]


@pytest.mark.usefixtures("one_of_eight")
@pytest.mark.parametrize("path", FIRST_BATCHES)
def test_it_loads_and_runs_its_first_batch(path, my_folder):
    experiment = load_experiment(path, ["train.threads=1"])
    if experiment.data.source == "fashion-mnist" and not FASHION_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    if experiment.data.source == "folder":
        experiment = experiment.replace({"data.path": str(my_folder)})
    if experiment.train.head_only:  # features of all images come before the first batch
        small = {"data.image_size": 32, "augment.vertical_flip": False, "augment.quarter_turns": False}
        experiment = experiment.replace(small)
    # Whatever its size, a batch goes the same way; one of large photographs takes ten seconds.
    experiment = experiment.replace({"train.batch_size": min(experiment.train.batch_size, MOST_AT_ONCE)})
    prepared = prepare(experiment, Project(ROOT))
    task, state = prepared.begin()
    assert list(fit(task, state, should_stop=lambda: True)) == []
    assert (state.epoch, state.step) == (0, 1)
    assert np.isfinite(state.loss_sum)
    assert all(torch.isfinite(p).all() for p in state.model.parameters())


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_its_header_says_the_command_and_its_name_is_the_file(path):
    text = path.read_text()
    assert load_experiment(path).name == path.stem
    assert text.startswith("#")
    assert path.stem in text.split("\nname =")[0]
