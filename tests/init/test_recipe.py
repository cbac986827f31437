"""Reasons of a recipe that are true: of its network and of its image size, for budgets and images of several kinds."""

import pytest

from imgcls.config.keys import DataConfig
from imgcls.init.look import list_folder
from imgcls.init.recipe import choose_recipe
from imgcls.project import Project
from tests.data.make import noise, write

HOUR = 3600.0


@pytest.mark.parametrize(
    ("side", "budget", "key", "reason", "image_size"),
    [
        (12, HOUR, "model.name", "pretrained weights find little in images below 16 pixels", 12),
        (20, HOUR, "model.name", "no pretrained weights that take such images are on this machine", 20),
        (
            50,
            100 * HOUR,
            "data.image_size",
            "to 64, because smaller ones are not tried. The budget has time",
            64,
        ),
        (50, 10.0, "data.image_size", "Even at 64, the smallest size that is tried, the budget is short", 64),
        (100, 10.0, "data.image_size", "Even at 64, the smallest size that is tried, the budget is short", 64),
        (
            100,
            100 * HOUR,
            "data.image_size",
            "96 is the largest size that is tried, and the budget has time for it",
            96,
        ),
    ],
)
def test_reasons_without_pretrained_weights(tmp_path, monkeypatch, side, budget, key, reason, image_size):
    monkeypatch.setattr("imgcls.init.recipe._pretrained", lambda: iter(()))
    for number in range(8):
        write(tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number}.png", noise(number, (side, side)))
    found = list_folder(DataConfig(path="images"), Project(tmp_path))
    recipe = choose_recipe(found, budget)
    assert reason in recipe.reasons[key]
    assert recipe.values["data.image_size"] == image_size
    assert set(recipe.values) == set(recipe.reasons)
    assert all(recipe.reasons.values())
