"""Chosen values whose reasons say what a sweep will say, and by how much a flip changes the classes."""

import re

import numpy as np

from imgcls.config.load import load_experiment
from imgcls.init.verb import init
from imgcls.project import Project
from imgcls.runs.prepare import prepare
from tests.data.make import noise, write


def test_a_crop_that_a_sweep_warns_of_is_announced(make_project, monkeypatch):
    project = make_project()
    monkeypatch.chdir(project.root)
    for number in range(24):
        write(project.root / "images" / ("cat", "dog")[number % 2] / f"{number}.png", noise(number, (16, 12)))
    result = init("wide", project.root / "images", 60.0, project.root)
    loaded = load_experiment(result.experiment)
    assert loaded.data.fit == "crop"
    assert prepare(loaded, Project(project.root)).dataset.cut
    (reason,) = (choice.reason for choice in result.proposal.choices if choice.key == "data.fit")
    assert "a sweep warns of what is cut off" in reason


def test_reasons_of_flips_name_the_share_and_the_limit(make_project, monkeypatch):
    project = make_project()
    monkeypatch.chdir(project.root)
    shade = np.linspace(0, 200, 10).astype(np.uint8)[:, None, None]  # bright below
    for number in range(100):
        write(project.root / "images" / ("cat", "dog")[number % 2] / f"{number:03}.png", shade + noise(number) // 5)
    result = init("flips", project.root / "images", 60.0, project.root)
    reasons = {choice.key: (choice.value, choice.reason) for choice in result.proposal.choices}
    safe, why = reasons["augment.horizontal_flip"]
    assert safe
    assert re.fullmatch(
        r"Horizontal flips are safe: [\d.]+ % of the difference between an image and its mirror image is common to its "
        r"class \(limit 4 %\)", why
    )  # fmt: skip
    safe, why = reasons["augment.vertical_flip"]
    assert not safe
    assert why.startswith("Vertical flips are not safe: ")
    assert "an image and the image upside down is common to its class (limit 4 %)" in why
    assert why.endswith("Set true if the class does not change under it")
