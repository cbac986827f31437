"""The program of docs/using-a-model.md gives the recorded probabilities, for every network that the page names."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import imgcls
from imgcls.config.keys import ModelConfig
from imgcls.models.registry import build_model
from imgcls.record import Artifact
from imgcls.runs.val_predictions import recorded_predictions
from tests.data.make import picture

PAGE = (Path(__file__).parent.parent / "docs" / "using-a-model.md").read_text(encoding="utf-8")
(PROGRAM,) = re.findall(r"<!-- a test runs this -->\n```python\n(.*?)```", PAGE, re.DOTALL)
(VIEWS,) = re.findall(r"<!-- a test runs this as well -->\n```python\n(.*?)```", PAGE, re.DOTALL)

MAKES_NETWORK = 'torchvision.models.resnet18(num_classes=len(best["class_names"]))'

QUICK = {
    "name": "photographs",
    "data": {"source": "folder", "path": "images", "image_size": 32},
    "train": {"epochs": 1, "warmup_epochs": 0, "batch_size": 8, "device": "cpu", "threads": 1},
}

SIZES = [(90, 60), (60, 90), (64, 64), (1301, 1250), (33, 400), (97, 71)]

SMALL_STEM = (
    'network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)\n'
    "network.maxpool = torch.nn.Identity()\n"
)  # fmt: skip


@pytest.fixture(scope="module")
def photographs(make_project):
    """A project with photographs of many shapes, some turned by their EXIF."""
    project = make_project()
    for seed in range(24):
        path = project.root / "images" / ("val" if seed < 12 else "train") / "ab"[seed % 2] / f"{seed:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        turned = Image.Exif()
        turned[0x0112] = 1 + seed % 8
        Image.fromarray(picture(seed, SIZES[seed % len(SIZES)])).save(path, exif=turned)
    return project


def test_the_program_is_short_and_needs_no_imgcls():
    lines = [line for line in PROGRAM.splitlines() if line.strip()]
    assert "imgcls" not in PROGRAM
    assert len(lines) == 2 + 15, "two imports, and what it does"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "network", "then"),
    [
        ({"name": "torchvision:resnet18"}, MAKES_NETWORK, ""),
        (
            {"name": "torchvision:resnet34"},
            'torchvision.models.get_model("resnet34", num_classes=2)',
            "",
        ),
        ({"name": "timm:resnet10t"}, '__import__("timm").create_model("resnet10t", num_classes=2)', ""),
        ({"name": "resnet", "depth": 18, "stem": "small"}, MAKES_NETWORK, SMALL_STEM),
    ],
)
def test_it_gives_the_recorded_probabilities(photographs, tmp_path, monkeypatch, model, network, then):
    program = PROGRAM.replace(f"network = {MAKES_NETWORK}.eval()\n", f"network = {network}\n{then}network.eval()\n")
    assert program != PROGRAM
    assert_recorded_probabilities(photographs, tmp_path, monkeypatch, program, model=model)


@pytest.mark.slow
def test_with_the_lines_for_several_views_it_gives_those_of_a_run_that_has_them(photographs, tmp_path, monkeypatch):
    program, num_replaced = re.subn(r"with torch\.inference_mode\(\):\n    probs = .*\n", VIEWS, PROGRAM)
    assert num_replaced == 1
    data = QUICK["data"] | {"test_views": "orientations"}
    model = {"name": "torchvision:resnet18"}
    assert_recorded_probabilities(photographs, tmp_path, monkeypatch, program, model=model, data=data)


def assert_recorded_probabilities(project, tmp_path, monkeypatch, program, **tables):
    monkeypatch.chdir(project.root)
    done = imgcls.train(QUICK, **tables)
    recorded = recorded_predictions(project.tracker.get(done.run_id), project.tracker)
    monkeypatch.chdir(tmp_path)
    with project.tracker.fetch(done.run_id, Artifact.BEST) as best:
        shutil.copy(best, "best.pt")
    for _, row in recorded.iterrows():
        shutil.copy(project.root / "images" / row["image"], "photograph.jpg")
        names = {}
        exec(compile(program, "docs/using-a-model.md", "exec"), names)
        probs = dict(zip(names["best"]["class_names"], names["probs"].tolist(), strict=True))
        for name, prob in probs.items():
            assert abs(prob - float(row[f"calibrated/{name}"])) <= 1e-5, row["image"]
        assert max(probs, key=probs.get) == row["prediction"]
    assert len(recorded) == 12
    assert np.ptp(recorded["prob/a"]) > 1e-4  # the images differ


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_weights_of_resnet_load_into_torchvision_s_network(depth):
    config = ModelConfig(name="resnet", depth=depth, width=64, stem="standard")
    own = build_model(config, num_classes=3, channels=3, image_size=64, seed=1, with_weights=False).eval()
    other = torchvision.models.get_model(f"resnet{depth}", num_classes=3).eval()
    other.load_state_dict(own.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(other(images), own(images), atol=1e-5)
