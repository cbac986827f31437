"""Whether a run may take the place of a champion, from predictions that stand in a real store."""

import pytest
from scipy.stats import binomtest

from imgcls.inference.champion import challenge
from imgcls.record import Tag
from imgcls.tracking.registry import Version


def a_run(tracker, hits, groups=None, first=0):
    """A run whose predictions on val are right where `hits` says so; images are told apart by their number."""
    with tracker.start_run("exp", kind="train", name="a run", tags={Tag.DATA_FINGERPRINT: "abc"}) as run:
        rows = [
            f"{i}.png,{i + first:016x},{groups[i] if groups else ''},cat,{'cat' if hit else 'dog'},0.5,0.5"
            for i, hit in enumerate(hits)
        ]
        text = "\n".join(["image,digest,group,label,prediction,prob/cat,prob/dog", *rows])
        run.log_text("predictions/val.csv", text + "\n")
        if groups:
            run.set_tags({Tag.NUM_VAL_GROUPS: str(len(set(groups)))})
    return tracker.get(run.run_id)


def hits(both, only, neither):
    """bool per image of two runs, of which the first alone is right on `only` images, the second on none."""
    return [True] * both + [True] * only + [False] * neither, [True] * both + [False] * (only + neither)


def holder(run):
    return Version("a model", 1, run.run_id, {})


@pytest.mark.parametrize(
    ("both", "only", "neither", "wins"),
    [
        (80, 10, 10, True),
        (80, 6, 14, True),  # p = 2 / 64 = 0.031
        (80, 5, 15, False),  # p = 2 / 32 = 0.063, although the interval may begin above zero
        (80, 0, 20, False),
    ],
)
def test_it_takes_a_significant_difference_on_the_same_images(project, both, only, neither, wins):
    tracker = project.tracker
    better, worse = (a_run(tracker, right) for right in hits(both, only, neither))
    verdict = challenge(better, holder(worse), tracker)
    p = binomtest(only, only).pvalue if only else 1
    assert verdict.wins == wins and f"p = {p:.2g} ({only} images only this run has right" in verdict.words
    assert f"difference {only / 100:+.4f}, 95% interval " in verdict.words
    assert not challenge(worse, holder(better), tracker).wins


def test_groups_are_compared_as_wholes(project):
    """What is certain for images that stand for themselves is not for three groups of them."""
    tracker = project.tracker
    better, worse = hits(40, 20, 40)
    groups = [f"patient {i % 3}" for i in range(100)]
    verdict = challenge(a_run(tracker, better, groups), holder(a_run(tracker, worse, groups)), tracker)
    assert not verdict.wins and "in 3 groups" in verdict.words and "sign changes of whole groups" in verdict.words


def test_other_val_images_cannot_be_paired(project):
    tracker = project.tracker
    verdict = challenge(a_run(tracker, [True] * 5), holder(a_run(tracker, [False] * 5, first=2)), tracker)
    assert not verdict.wins and "4 of their 5 and 5 have no counterpart" in verdict.words


@pytest.mark.parametrize("run_id", ["", "0123456789abcdef0123456789abcdef"])
def test_a_champion_whose_run_is_not_known_stays(project, run_id):
    tracker = project.tracker
    verdict = challenge(a_run(tracker, [True] * 5), Version("a model", 4, run_id, {}), tracker)
    assert not verdict.wins and (run_id or "names no run") in verdict.words
