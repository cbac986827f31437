"""Folders with many classes or many files are looked through whole: the counts are those of an own listing."""

from collections import Counter

import pytest

from imgcls.config.load import load_experiment
from imgcls.init.look import list_folder
from imgcls.init.verb import init
from imgcls.project import Project
from imgcls.runs.prepare import prepare
from tests.data.make import noise, write


def many_classes(root):
    for number in range(2000):
        write(root / f"class {number % 200:03}" / f"{number:05}.png", noise(number))


def many_files(root):
    for number in range(3000):
        kind = min(number % 12, 9)  # the last class has three times the images of the others
        write(root / f"class {kind}" / f"{number:05}.png", noise(number, (28, 28)))


@pytest.mark.slow
@pytest.mark.parametrize("make", [many_classes, many_files])
def test_the_counts_are_those_of_a_listing(make_project, monkeypatch, make):
    project = make_project()
    monkeypatch.chdir(project.root)
    images = project.root / "images"
    make(images)
    listing = Counter(path.parent.name for path in images.rglob("*.png"))

    result = init("large", images, 60.0, project.root)

    loaded = load_experiment(result.experiment)
    found = list_folder(loaded.data, Project(project.root))
    assert dict(zip(found.source.class_names, found.counts.tolist(), strict=True)) == listing
    assert result.facts["num_images"] == result.facts["num_decoded"] == sum(listing.values())
    assert (result.facts["num_classes"], result.facts["num_unreadable"]) == (len(listing), 0)
    assert (result.facts["smallest_class"], result.facts["largest_class"]) == (
        min(listing.values()), max(listing.values())
    )  # fmt: skip
    dataset = prepare(loaded, Project(project.root)).dataset
    sizes = [len(images) for images in (dataset.train, dataset.val)]
    assert sizes == [result.facts["num_train"], result.facts["num_val"]]
    assert sum(sizes) + result.facts["num_test"] == sum(listing.values())
