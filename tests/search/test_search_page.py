"""The page on the searched values, from records made by hand: what it says is counted from the trials."""

import pandas as pd
import pytest

from imgcls.config.ranges import Range
from imgcls.metrics import metric_named
from imgcls.reporting.html import page
from imgcls.reporting.report import markdown
from imgcls.search.search_page import SearchFacts, search_report
from imgcls.statistics.intervals import Interval
from tests.reporting.records import record, trained
from tests.reporting.test_html import Page

SPACE = {"train.lr": Range(low=1e-4, high=1e-2, log=True), "model.depth": (18, 34), "data.fit": ("crop", "pad")}


def board(*trials):
    """Rows of (accuracy, lr, depth, fit, outcome), the best first."""
    columns = ["val/accuracy", "train.lr", "model.depth", "data.fit", "outcome"]
    made = pd.DataFrame(trials, columns=columns)
    return made.assign(**{"val/loss": 1.0, "trial": range(len(made)), "run_id": "r", "best/epoch": 3.0})


MANY = board(
    *((0.9 - 0.01 * i, 9e-3 - 1e-4 * i, 34, "pad", "completed") for i in range(4)),
    *((0.6 - 0.01 * i, 1e-4 + 1e-4 * i, 18, "crop", "completed") for i in range(8)),
    (0.5, 5e-4, 18, "crop", "pruned"),
    (None, None, None, None, "failed"),
)
FEW = board((0.9, 2e-3, 18, "pad", "completed"), (0.3, 1e-3, 34, "crop", "completed"))
IMPORTANCES = {"model.depth": (0.7, Interval(0.5, 0.8)), "train.lr": (0.3, Interval(0.2, 0.6))}


def report(of=MANY, importances=None, **tags):
    sweep = record("sweep1", "sweep", study="solar_cells-1", **tags)
    best = trained("run0", "trial", of["val/accuracy"][0], trial=0)
    return search_report(SearchFacts(sweep, best, of, SPACE, importances or {}, metric_named("val/accuracy")))


def test_the_values_of_the_best_trials_are_told():
    text = markdown(*report())
    for fact in (
        "# solar_cells-1: searched values",
        "**0.90 (0.86 to 0.93)** accuracy on 300 validation images, of trial 0, the best of 14 trials. The same images",
        "| train.lr | 0.0001 to 0.01, log | 9e-3 | 1e-4 to 9e-3 |",
        "| model.depth | 18, 34 | 34 | 34 (4 trials), 18 (1 trial) |",
        "| data.fit | crop, pad | pad | pad (4 trials), crop (1 trial) |",
        "4 of 12 completed trials, the best included, have a val/accuracy in the 95% interval of the best.",
        "`train.lr` of 4 of the 5 best trials lies near the upper end of its range.",
        "This needs 20 completed trials, and 12 were completed.",
    ):
        assert fact in text


@pytest.mark.slow
def test_of_few_trials_only_the_best_is_told():
    text = markdown(*report(FEW))
    assert "| key | searched | in trial 0, the best |\n" in text and "near the" not in text
    assert "The other completed trial does not have a val/accuracy in the 95% interval of the best." in text
    assert "of the only trial." in markdown(*report(FEW[:1]))
    assert "the best of 2 trials (5 were wanted). The same" in markdown(*report(FEW, num_trials_wanted=5))
    assert "of the only trial (5 were wanted)." in markdown(*report(FEW[:1], num_trials_wanted=5))


def test_keys_stand_in_the_order_of_their_importance_and_a_tie_is_said():
    text = markdown(*report(importances=IMPORTANCES))
    assert text.index("| model.depth | 18, 34 |") < text.index("| train.lr | 0.0001 to 0.01, log |")
    assert "The range of `model.depth` overlaps with that of `train.lr`" in text


def test_where_trials_pause_importances_are_those_after_the_first_pause():
    text = markdown(*report(importances=IMPORTANCES, compared_after="epoch 3"))
    assert "The trials are compared by their scores up to epoch 3, which all of them have. How much" in text
    assert "This needs 20 trials that came to epoch 3, and fewer did." in markdown(*report(compared_after="epoch 3"))


def test_cautions_stand_beside_the_scores():
    text = markdown(*report(num_near_leaked=3))
    assert text.count("3 val and test images look like an image of another split.") == 3


@pytest.mark.parametrize("of", [MANY, FEW, FEW[:1]])
def test_each_picture_says_what_it_shows_and_nothing_is_fetched(of):
    made = Page(page(*report(of, IMPORTANCES)))
    assert "script" not in made.tags and all(address.startswith(("data:", "#")) for address in made.addresses)
    alts = [value for tag, name, value in made.attributes if (tag, name) == ("img", "alt")]
    assert len(alts) == made.tags.count("img") == 6 and all(alts)
    (of_depth,) = [alt for alt in alts if "against model.depth" in alt]
    if of is MANY:
        assert of_depth.endswith("Medians of the completed trials: 0.565 at 18, 0.885 at 34.")
