"""What docs/architecture.md says of adding something is so: it is added in a copy of the package, used, and counted."""

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parent.parent
COST = {"metric": 1, "augmentation": 2, "network": 2, "source": 2, "verb": 2}
"""Files that an addition touches, tests and changelog aside."""
NAMES = {"network": "linear", "source": "squares", "verb": "greet"}
"""The new files that are added here."""


@dataclass
class Copy:
    """A copy of the package, and a project that uses it."""

    root: Path
    project: Path

    def change(self, name, *changes):
        """Replaces texts of a file; each stands there once."""
        path = self.root / name
        text = path.read_text()
        for old, new in changes:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        path.write_text(text)

    def write(self, name, text):
        assert not (self.root / name).exists()
        (self.root / name).write_text(text)

    def imgcls(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "imgcls", *arguments], cwd=self.project, capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONPATH": str(self.root)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def touched(self):
        """The files that are not as they are in the repository."""
        ours, theirs = (contents(root) for root in (ROOT, self.root))
        return {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}


def contents(root):
    """Digest of every file of the package that git would keep."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (root / "imgcls").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture
def copy(tmp_path, make_project):
    shutil.copytree(ROOT / "imgcls", tmp_path / "imgcls")  # with what Python has compiled
    return Copy(tmp_path, make_project().root)


def documented(kind):
    """The files that docs/architecture.md says to touch; NEW stands for the name of what is added."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    row = re.search(rf"^\| {kind} \|.*$", text, re.MULTILINE)
    assert row is not None, kind
    return {path.replace("NEW", NAMES.get(kind, "")) for path in re.findall(r"`(imgcls/[\w/]+\.py)`", row[0])}


def verb(copy):
    copy.write(
        "imgcls/cli/greet.py",
        '''"""Greet."""

from typing import Annotated

import typer

from imgcls.cli.output import write


def greet(name: Annotated[str, typer.Option(help="Whom.")] = "world") -> None:
    """Greet somebody."""
    write(f"hello {name}")
''',
    )
    copy.change(
        "imgcls/cli/app.py",
        (
            "from imgcls.cli.keys import keys\n",
            "from imgcls.cli.greet import greet\nfrom imgcls.cli.keys import keys\n",
        ),
        ("for _verb in (", "for _verb in (greet, "),
    )
    assert "Greet somebody." in copy.imgcls("--help")
    assert copy.imgcls("greet", "--name", "you") == "hello you\n"


def augmentation(copy):
    """All images of train become grey, so nothing can be learnt."""
    copy.change(
        "imgcls/config/keys.py",
        (
            "    mixup: Annotated",
            '''    fading: Annotated[Probability, Reported("fading by {:g}")] = 0.0
    """Take this share of the contrast from every image. 0: off."""
    mixup: Annotated''',
        ),
    )
    copy.change(
        "imgcls/data/augment.py",
        (
            'normalise(self(images, draw("augment"), part))',
            'normalise(self(images, draw("augment"), part)) * (1 - self.config.fading)',
        ),
    )
    assert "Take this share" in copy.imgcls("keys", "augment.fading")
    trained = json.loads(copy.imgcls("train", "tiny", "--set", "augment.fading=1.0", "--json"))
    assert trained["best/val/loss"] > math.log(10) - 0.1


def network(copy):
    """A linear layer, which takes none of the keys of [model]."""
    copy.write(
        "imgcls/models/linear.py",
        '''"""`linear`: logistic regression on the pixels."""

from imgcls.models.network import Network


class Linear(Network):
    """`linear`."""

    name = "linear"
    about = "logistic regression on the pixels"

    def build(self, config, num_classes, channels, image_size):
        """One layer."""
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes))
''',
    )
    copy.change(
        "imgcls/models/registry.py",
        (
            "from imgcls.models.network import",
            "from imgcls.models.linear import Linear\nfrom imgcls.models.network import",
        ),
        ("(ResNetOfAnyDepth(), ", "(Linear(), ResNetOfAnyDepth(), "),
    )
    assert "logistic regression on the pixels" in copy.imgcls("models", "line")
    linear = ("--set", "model.name=linear", "--set", "model.depth=0", "--set", "model.width=0")
    trained = json.loads(copy.imgcls("train", "tiny", *linear, "--json"))
    assert trained["best/val/accuracy"] > 0.5


def source(copy):
    """A generator of pictures: bright and dark noise."""
    copy.write(
        "imgcls/data/sources/squares.py",
        '''"""`squares`: bright and dark squares of noise, drawn when they are asked for."""

import numpy as np
from PIL import Image

from imgcls.data.image_set import SourceImages
from imgcls.data.sources.source import ImageSource, Source


class Squares(ImageSource):
    """`squares`."""

    name = "squares"
    uses_path = False

    def open(self, config, path):
        """200 RGB images of 8 x 8 pixels."""
        labels = np.arange(200) % 2

        def read(row):
            low = 128 * int(labels[row])
            return Image.fromarray(np.random.default_rng(row).integers(low, low + 128, (8, 8, 3), np.uint8))

        images = SourceImages(tuple(map(str, range(200))), labels, read, "squares 1", "squares")
        return Source(("dark", "bright"), {}, images, channels=3, native_side=8)
''',
    )
    copy.change(
        "imgcls/data/sources/__init__.py",
        (
            "from imgcls.data.sources.torchvision import",
            "from imgcls.data.sources.squares import Squares\nfrom imgcls.data.sources.torchvision import",
        ),
        ("FashionMnist(), Torchvision(", "FashionMnist(), Squares(), Torchvision("),
    )
    trained = json.loads(copy.imgcls("train", "tiny", "--set", "data.source=squares", "--json"))
    assert trained["best/val/accuracy"] > 0.9


def metric(copy):
    """The error of the worst class, of which less is better, selects the epoch and the trial."""
    copy.change(
        "imgcls/metrics.py",
        (
            "METRICS = (\n",
            """def _worst_error(of):
    hits, images, _ = of.counts
    return float(1 - (hits / images).min())


METRICS = (
    Metric("worst_error", "error of the worst class", higher_is_better=False, each_epoch=True, compute=_worst_error),
""",
        ),
    )
    swept = json.loads(
        copy.imgcls("sweep", "tiny", "--trials", "2", "--set", "search.metric=val/worst_error", "--json")
    )
    client = MlflowClient(f"sqlite:///{copy.project / 'mlflow.db'}")
    sweep = client.get_run(swept["run_id"])
    tag = "tags.`mlflow.parentRunId`"
    trials = client.search_runs([sweep.info.experiment_id], f"{tag} = '{sweep.info.run_id}'")
    epochs = [point.value for run in trials for point in client.get_metric_history(run.info.run_id, "val/worst_error")]
    assert len(epochs) > 3
    assert min(epochs) < max(epochs)
    assert swept["best/val/worst_error"] == sweep.data.metrics["val/worst_error_best"] == min(epochs)


@pytest.mark.parametrize(
    "add",
    [verb, *(pytest.param(add, marks=pytest.mark.slow) for add in (augmentation, metric, network, source))],
    ids=lambda add: add.__name__,
)
def test_to_add_one_touches_the_files_that_the_map_names(copy, add):
    add(copy)
    assert copy.touched() == documented(add.__name__)
    assert len(copy.touched()) == COST[add.__name__]
