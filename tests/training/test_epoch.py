from dataclasses import asdict, replace

import pytest

from imgcls.errors import InputError
from imgcls.training.epoch import EpochResult

RESULT = EpochResult(
    epoch=3,
    train_loss=0.5,
    val={"val/loss": 0.25, "val/accuracy": 0.75},
    lr=1e-3,
    seconds=2.0,
    images_per_second=100.0,
    ended=0,
)


def test_metrics_stand_under_the_names_of_the_record():
    assert RESULT.metrics() == {
        "train/loss": 0.5, "val/loss": 0.25, "val/accuracy": 0.75, "train/lr": 1e-3,
        "epoch_seconds": 2.0, "images_per_second": 100.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "worse"),
    [
        ("val/accuracy", {"val": (0.1, 0.5), "epoch": 1}),
        ("val/accuracy", {"val": (0.3, 0.75), "epoch": 1}),  # a tie: the lower val loss
        ("val/accuracy", {"epoch": 4}),  # a tie in both: the earlier
        ("val/accuracy", {"train_loss": 0.0, "lr": 0.0, "seconds": 0.0, "epoch": 4}),
        ("val/loss", {"val": (0.3, 1.0), "epoch": 1}),
        ("val/loss", {"val": (0.25, 1.0), "epoch": 4}),  # a tie: the earlier
    ],
)
def test_the_better_epoch_ranks_lower(metric, worse):
    if "val" in worse:
        worse = worse | {"val": dict(zip(("val/loss", "val/accuracy"), worse["val"], strict=True))}
    assert RESULT.rank(metric) < replace(RESULT, **worse).rank(metric)


@pytest.mark.parametrize("metric", ["val/balanced_accuracy", "val/macro_f1", "val/auroc"])
def test_an_epoch_is_ranked_by_any_metric_and_ties_by_the_loss(metric):
    result = replace(RESULT, val={**RESULT.val, metric: 0.5})
    worse = {"lower": {metric: 0.4, "val/accuracy": 1.0, "val/loss": 0.1}, "tie": {metric: 0.5, "val/loss": 0.3}}
    for scores in worse.values():
        assert result.rank(metric) < replace(result, epoch=1, val={**result.val, **scores}).rank(metric)


def test_an_epoch_that_lacks_the_metric_is_never_ranked_by_it():
    """An earlier version trained it, and what it did not measure is not made up."""
    with pytest.raises(InputError, match=r"epoch 3 has no val/macro_f1, because an earlier .* val/loss or val/acc"):
        RESULT.rank("val/macro_f1")


def test_a_checkpoint_holds_an_epoch_whole():
    assert EpochResult.restored(asdict(RESULT)) == RESULT


def test_an_epoch_of_an_earlier_checkpoint_is_what_it_was():
    fields = {**asdict(RESULT), "val_loss": 0.25, "val_accuracy": 0.75}
    del fields["val"]
    assert EpochResult.restored(fields) == RESULT
