"""Runs and sweeps that began before train's squares were capped by the images' own side: they go on with theirs."""

import pytest

from imgcls import project as projects
from imgcls.errors import Interrupted
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.rerun import rerun
from imgcls.runs.prepare import prepare
from imgcls.runs.rebuild import rebuild
from imgcls.runs.train import train_run
from imgcls.search.study_name import study_name
from imgcls.search.sweep import Sweep, sweep
from tests.data.make import picture, write
from tests.stops import StopAfter

KEYS = ("data.source=folder", "data.path=photos", "augment.random_resized_crop=[0.05, 1.0]", "train.batch_size=8")


@pytest.fixture
def photos(project):
    """A project whose images, of 20 x 24 pixels, are smaller than the 36 that its crops ask for."""
    for label, kind in enumerate(("cat", "dog")):
        for i in range(12):
            write(project.root / "photos" / kind / f"{i:02d}.png", picture(100 * label + i, (20, 24)))
    return project


def train(photos, *, squares=3):
    prepared = prepare(photos.experiment(*KEYS), projects.Project(photos.root), squares)
    return train_run(prepared, photos.tracker, kind="train", name="tiny")


def side_of_train(photos, run_id):
    return rebuild(photos.tracker.get(run_id), photos.tracker).dataset.train.stored.shape[-1]


@pytest.mark.slow
def test_a_run_that_began_with_larger_squares_goes_on_is_repeated_and_judged_with_them(photos):
    with pytest.raises(Interrupted), StopAfter(4):
        train(photos, squares=2)
    (begun,) = photos.runs(kind="train")
    done = train(photos)
    assert done.run_id == begun.run_id and photos.tracker.get(done.run_id).squares == 2
    assert side_of_train(photos, done.run_id) == 36
    assert rerun(done.run_id, photos.tracker).is_bitwise
    assert evaluate(done.run_id, photos.tracker).judged.run_id == done.run_id
    new = train(photos)
    assert new.run_id != done.run_id and photos.tracker.get(new.run_id).squares == 3
    assert side_of_train(photos, new.run_id) == 20


@pytest.mark.slow
@pytest.mark.parametrize("space", ['"train.lr" = [0.02]', '"data.image_size" = [8]'])
def test_the_trials_of_a_sweep_that_began_with_larger_squares_have_them(photos, space):
    settings = f"search.space={{{space}}}", "search.trials=1", "search.sampler=random"
    experiment = photos.experiment(*KEYS, *settings)
    begun = prepare(experiment, projects.Project(photos.root), 2)
    tags = {"imgcls.study": study_name(experiment, begun, 2)}
    with photos.tracker.start_run("tiny", kind="sweep", name="sweep", tags=tags) as run:
        pass
    assert sweep(experiment, photos.tracker).run_id == run.run_id
    assert {side_of_train(photos, trial.run_id) for trial in photos.runs(kind="trial")} == {36}
    new = Sweep(experiment.replace({"train.batch_size": 9}), photos.tracker)
    assert new.squares == 3


def test_the_study_of_a_sweep_without_larger_squares_is_that_of_earlier_versions(photos):
    """Its name is made of the format, and names the runs that earlier versions left."""
    experiment = photos.experiment(*KEYS[:2])
    assert Sweep(experiment, photos.tracker).squares == 2
