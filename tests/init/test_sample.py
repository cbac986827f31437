"""A folder of which only a sample is decoded: what is estimated, and what lets a sweep go on."""

import shutil

import pytest

from imgcls.config.load import load_experiment
from imgcls.init.verb import init
from imgcls.project import Project
from imgcls.runs.prepare import prepare
from tests.data.make import write_class, write_classes


@pytest.fixture
def sampled(make_project, monkeypatch):
    """Makes an experiment from a sample of a project's images: ten of each class, and a share of them next to 0."""
    project = make_project()
    monkeypatch.chdir(project.root)
    monkeypatch.setattr("imgcls.init.look.LOOK_SECONDS", 1e-6)

    def make():
        return project, init("many", project.root / "images", 60.0, project.root)

    return project.root / "images", make


def test_uneven_classes_are_seen_in_a_sample_that_has_as_many_of_each(sampled):
    folder, make = sampled
    write_classes(folder, {"cat": 120, "dog": 12})
    _, result = make()
    assert result.facts["num_decoded"] == 20
    assert (result.facts["is_uneven"], result.facts["smallest_train_class"]) == (True, 8)
    loaded = load_experiment(result.experiment)
    assert (loaded.train.class_weights, loaded.search.metric) == ("auto", "val/macro_f1")
    assert "about 9.5 times" in dict(result.found)["Uneven"]
    assert "cat has about 76 train images, dog about 8" in " ".join(result.experiment.read_text().split())


def test_a_sweep_goes_on_where_a_sample_did_not_show_what_would_stop_it(sampled):
    folder, make = sampled
    for at, split in enumerate(("train", "test")):
        for number, kind in enumerate(("cat", "dog")):
            start = 1000 * at + 100 * number
            write_class(folder / split / kind, range(start, start + 40))
    (folder / "train" / "cat" / "0001.png").write_bytes(b"no image")
    shutil.copy(folder / "train" / "dog" / "0101.png", folder / "test" / "dog" / "1101.png")
    project, result = make()
    assert (result.facts["num_unreadable"], result.facts["leaks"]) == (0, "")
    reasons = {choice.key: choice.reason for choice in result.proposal.choices}
    assert "120 images were not decoded" in reasons["data.skip_unreadable"]
    assert "120 images were not compared" in reasons["data.allow_leaks"]
    dataset = prepare(load_experiment(result.experiment), Project(project.root)).dataset
    assert (dataset.num_skipped, dataset.leaks.num_leaked) == (1, 1)


def test_time_for_decoding_what_a_sample_left_is_in_the_plan(sampled):
    folder, make = sampled
    write_classes(folder, {"cat": 60, "dog": 60})
    _, result = make()
    assert "for decoding the images" in result.experiment.read_text().replace("\n# ", " ")
