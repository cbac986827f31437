"""A sweep that starts from an earlier one, in real stores, against the record as MLflow's own client reads it."""

import io
import logging

import pandas as pd
import pytest

from imgcls.errors import ConfigError, InputError
from imgcls.evaluation.judge import evaluate
from imgcls.evaluation.selection import selection_of, story
from imgcls.record import Artifact
from imgcls.search.driver import Driver
from imgcls.search.sweep import Sweep
from imgcls.search.warm_start import find_warm_start
from imgcls.search.winner import flat
from tests.data.make import write_classes

QUICK = ("train.epochs=1", "train.warmup_epochs=0", "model.width=4", "search.space.train.warmup_epochs=[0]")
AUTO, OTHER = "search.warm_start=auto", "train.weight_decay=0.2"


class Earlier:
    """A sweep of five trials that has ended, and a project that begins as a copy of its store."""

    def __init__(self, project, run_id):
        self.project, self.run_id = project, run_id
        trials = [run for run in project.runs(kind="trial") if run.outcome == "completed"]
        self.ranked = sorted(trials, key=lambda run: (-run.best("val/accuracy"), run.best("val/loss")))

    def best(self, own=(0.02, 8), fitted=lambda lr, depth: (lr, depth)):
        """The three best trials, as MLflow holds them: number -> what a new space makes of their values."""
        values = {}
        for run in self.ranked:
            one = fitted(float(run.params["train.lr"]), int(run.params["model.depth"]))
            if one not in (own, *values.values()):
                values[run.trial] = one
        return dict(list(values.items())[:3])


def taken(found):
    """Number of the earlier trial -> learning rate and depth that it gives."""
    values = [(values["train.lr"], values["model.depth"]) for values in found.values]
    return dict(zip(found.trials, values, strict=True))


@pytest.fixture(scope="module")
def kept(make_project):
    made = make_project()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.root)
        overrides = (*QUICK, "search.trials=5", "search.sampler=random", 'search.pruner="none"')
        result = Sweep(made.experiment(*overrides), made.tracker).run()
    return made, result.run_id


@pytest.fixture
def earlier(kept, project):
    project.become(kept[0])
    return Earlier(project, kept[1])


def found_by(earlier, *overrides):
    project = earlier.project
    return find_warm_start(project.prepare(*QUICK, *overrides), "a new study", project.tracker)


# --- what fits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "own", "fitted"),
    [
        pytest.param((OTHER,), (0.02, 8), lambda lr, depth: (lr, depth), id="the same space"),
        pytest.param(
            ("search.space.train.lr={low = 3e-3, high = 1.0, log = true}", "train.lr=0.9"),
            (0.9, 8), lambda lr, depth: (lr if lr >= 3e-3 else 0.9, depth), id="a range without some values",
        ),
        pytest.param(
            ("search.space.model.depth=[14, 20]", "model.depth=20"),
            (0.02, 20), lambda lr, depth: (lr, depth if depth == 14 else 20), id="a list without one value",
        ),
        pytest.param(
            ("search.space.train.lr=[0.02, 0.5]", "search.space.model.depth=[8, 14, 20]"),
            (0.02, 8), lambda _, depth: (0.02, depth), id="a list for a range, so some become equal",
        ),
    ],
)  # fmt: skip
def test_what_fits_of_the_best_configurations_is_taken_in_their_order(earlier, overrides, own, fitted):
    """The rest of each has the experiment's own values."""
    found = found_by(earlier, AUTO, *overrides)
    assert found.sweep == earlier.run_id
    assert taken(found) == earlier.best(own, fitted)
    assert list(taken(found)) == list(earlier.best(own, fitted))
    assert all(values["train.warmup_epochs"] == 0 for values in found.values)


def test_a_key_that_was_not_searched_has_the_value_that_the_earlier_trials_had(earlier):
    new = ("search.space.train.label_smoothing=[0.0, 0.05, 0.2]", "train.label_smoothing=0.2")
    found = found_by(earlier, AUTO, *new)
    recorded = {float(run.params["train.label_smoothing"]) for run in earlier.ranked}
    assert {values["train.label_smoothing"] for values in found.values} == recorded != {0.2}


def test_a_space_into_which_nothing_fits(earlier, caplog):
    other = ("search.space.train.lr=[0.5]", "train.lr=0.5", "search.space.model.depth=[20, 26]", "model.depth=20")
    with caplog.at_level(logging.INFO):
        assert found_by(earlier, AUTO, *other) is None
    assert f"sweep {earlier.run_id} (tiny) cannot be started from: none of its configurations" in caplog.text
    assert "no earlier sweep of this experiment or of these images fits" in caplog.text
    with pytest.raises(
        InputError, match=r"differs from the experiment's own; name another sweep, or set search.warm_s"
    ):
        found_by(earlier, f"search.warm_start={earlier.run_id}", *other)


# --- which sweep ------------------------------------------------------------------------------------------------------


def test_a_run_is_named_as_everywhere(earlier):
    by_prefix = found_by(earlier, OTHER, f"search.warm_start={earlier.run_id[:8]}")
    assert by_prefix == found_by(earlier, OTHER, "search.warm_start=last") == found_by(earlier, OTHER, AUTO)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("search.warm_start=best",), r"run \w{32} is of kind trial, not a sweep; its sweep is SWEEP; name a sweep"),
        (("search.warm_start=nothing",), r"no run 'nothing'.*imgcls runs"),
        ((AUTO, "search.sampler=grid"), r"a grid tries every combination.*set search.warm_start = .off."),
    ],
)
def test_what_cannot_be_started_from_is_refused_with_what_to_do(earlier, overrides, message):
    with pytest.raises((InputError, ConfigError), match=message.replace("SWEEP", earlier.run_id)):
        found_by(earlier, OTHER, *overrides)


def test_without_an_earlier_sweep_nothing_is_found(project, caplog):
    with caplog.at_level(logging.INFO):
        assert find_warm_start(project.prepare(*QUICK), "a new study", project.tracker) is None
        assert not caplog.messages
        assert find_warm_start(project.prepare(*QUICK, AUTO), "a new study", project.tracker) is None
    assert "no earlier sweep of this experiment or of these images fits" in caplog.text


# --- which images -----------------------------------------------------------------------------------------------------


def digests(earlier):
    text = earlier.project.tracker.read_text(earlier.ranked[0].run_id, Artifact.VAL_PREDICTIONS)
    return set(pd.read_csv(io.StringIO(text), dtype=str)["digest"])


def names(images):
    return {row.tobytes().hex()[:16] for row in images.digests}


def test_val_images_are_counted_as_the_same_by_their_pixels(earlier):
    same = found_by(earlier, OTHER, AUTO)
    val = earlier.project.prepare(*QUICK).dataset.val
    assert (same.num_shared_val, same.num_val, same.num_earlier, same.num_unsealed) == (len(val), len(val), 5, 0)
    fraction = "data.val_fraction=0.05"
    fewer = found_by(earlier, AUTO, fraction)
    shared = digests(earlier) & names(earlier.project.prepare(*QUICK, fraction).dataset.val)
    assert (fewer.num_shared_val, fewer.num_earlier) == (len(shared), 5) and shared
    assert fewer.num_unsealed == 0  # the same test split


def test_a_sweep_whose_val_images_are_now_test_images_is_refused(earlier, caplog):
    other_split = "data.test_fraction=0.5"
    test = earlier.project.prepare(*QUICK, other_split).dataset.test
    num = len(digests(earlier) & names(test.hashes()))
    assert num > 1
    why = f"{num} images of its val split, by which its configurations were chosen, are now in the test split"
    with pytest.raises(InputError, match=why):
        found_by(earlier, other_split, f"search.warm_start={earlier.run_id}")
    with caplog.at_level(logging.INFO):
        assert found_by(earlier, other_split, AUTO) is None
    assert why in caplog.text


def test_other_images_do_not_count(earlier):
    write_classes(earlier.project.root / "images", {"one": 40, "two": 40})
    folder = ("data.source=folder", f"data.path={earlier.project.root / 'images'}")
    found = found_by(earlier, *folder, AUTO)
    assert (found.num_shared_val, found.num_earlier, found.num_unsealed) == (0, 0, 0)
    assert "Its val images were others, so its trials are not counted" in " ".join(found.in_words())


# --- a whole sweep ----------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """Stands for a kill: nobody catches it."""


@pytest.mark.slow
def test_a_warm_sweep_says_so_everywhere_and_goes_on_with_what_it_planned(earlier, caplog, monkeypatch):
    project = earlier.project
    quick = (*QUICK, OTHER, "search.trials=3")
    with caplog.at_level(logging.INFO), monkeypatch.context() as patch:
        patch.setattr(Driver, "run", lambda _: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            Sweep(project.experiment(*quick), project.tracker).run()
        hint = (
            f"the earlier sweep {earlier.run_id} fits; a sweep that starts from its best configurations: --set {AUTO}"
        )
        assert hint in caplog.messages
        with pytest.raises(KilledError):  # between its plan and its first trial
            Sweep(project.experiment(*quick, AUTO), project.tracker).run()
    assert f"Trials 1 to 3 have the best configurations of the earlier sweep `{earlier.run_id}`" in caplog.text
    project.client.delete_run(earlier.run_id)  # it is read once
    result = Sweep(project.experiment(*quick, AUTO), project.tracker).run()
    trials = project.tracker.children(result.run_id, "trial")
    values = [(float(run.params["train.lr"]), int(run.params["model.depth"])) for run in trials]
    assert values == [(0.02, 8), *earlier.best().values()][:3]
    tags = project.client.get_run(result.run_id).data.tags
    numbers = ",".join(map(str, earlier.best()))
    expected = {"run_id": earlier.run_id, "trials": numbers}
    assert {name: tags[f"imgcls.warm_start_{name}"] for name in expected} == expected
    assert tags["imgcls.num_earlier_trials"] == "5"
    sweep = project.tracker.get(result.run_id)
    assert flat(sweep)["imgcls.num_earlier_trials"] == 5
    # Val chose among the earlier trials too, and every report of the winner says so.
    selection = selection_of(project.tracker.get(result.best_run_id), project.tracker)
    assert selection.chosen == "the epoch and the best of 3 trials, after 5 in earlier sweeps on the same val images"
    assert "after 5 in earlier sweeps on the same val images, by val/accuracy" in " ".join(story(selection))
    report = project.tracker.read_text(result.run_id, Artifact.REPORT)
    assert "It compared 5 trials on the same val images, so these count among those that val chose from." in report
    assert "The search started from the best configurations of an earlier one." in report
    judged = evaluate(result.best_run_id, project.tracker)
    report = project.tracker.read_text(judged.run_id, Artifact.REPORT)
    assert "3, after 5 in earlier sweeps on the same val images" in report
