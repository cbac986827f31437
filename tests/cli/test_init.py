"""`imgcls init` as it is typed."""

import json

import pytest
from typer.testing import CliRunner

from imgcls.cli import app
from imgcls.config.load import load_experiment
from imgcls.errors import InputError
from tests.data.make import write_classes


def typed(*arguments):
    return CliRunner().invoke(app, ["init", *arguments], catch_exceptions=False)


def test_text_ends_with_what_to_do_next(project):
    write_classes(project.root / "images", {"cat": 20, "dog": 20})
    done = typed("pets", "images", "--budget", "1m")
    assert done.exit_code == 0
    assert "2: cat 20, dog 20" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].split(maxsplit=1) == ["Next", "imgcls sweep pets"]
    assert "experiments/pets.toml" in done.stdout
    assert "mlruns/.init/pets.html" in done.stdout
    listed = CliRunner().invoke(app, ["runs"], catch_exceptions=False).stdout
    assert " init " in listed


def test_json_tells_the_values_of_the_file(project):
    write_classes(project.root / "images", {"cat": 20, "dog": 20})
    told = json.loads(typed("pets", "images", "--budget", "1m", "--json").stdout)
    loaded = load_experiment(project.root / "experiments" / "pets.toml")
    assert told["experiment_file"] == str(project.root / "experiments" / "pets.toml")
    assert (told["num_images"], told["num_classes"]) == (40, 2)
    for key in ("data.image_size", "train.epochs", "search.trials", "model.name", "augment.horizontal_flip"):
        table, name = key.split(".")
        assert told[key] == getattr(getattr(loaded, table), name)


def test_a_budget_that_no_trial_fits_says_what_one_takes(project):
    write_classes(project.root / "images", {"cat": 20, "dog": 20})
    done = typed("pets", "images", "--budget", "10s")
    assert "more than the budget of 10 s; raise --budget" in " ".join(done.stdout.split())
    assert load_experiment(project.root / "experiments" / "pets.toml").search.trials == 1


@pytest.mark.usefixtures("project")
def test_a_budget_in_other_words_is_refused_before_anything_is_read():
    with pytest.raises(InputError, match="such as 30m"):
        typed("pets", "nowhere", "--budget", "soon")
