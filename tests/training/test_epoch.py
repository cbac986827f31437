from dataclasses import replace

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from imgcls.training.epoch import EpochResult
from imgcls.training.loop import loss_and_accuracy

RESULT = EpochResult(
    epoch=3,
    train_loss=0.5,
    val_loss=0.25,
    val_accuracy=0.75,
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
        ("val/accuracy", {"val_accuracy": 0.5, "val_loss": 0.1, "epoch": 1}),
        ("val/accuracy", {"val_loss": 0.3, "epoch": 1}),  # a tie: the lower val loss
        ("val/accuracy", {"epoch": 4}),  # a tie in both: the earlier
        ("val/accuracy", {"train_loss": 0.0, "lr": 0.0, "seconds": 0.0, "epoch": 4}),
        ("val/loss", {"val_loss": 0.3, "val_accuracy": 1.0, "epoch": 1}),
        ("val/loss", {"val_accuracy": 1.0, "epoch": 4}),  # a tie: the earlier
    ],
)
def test_the_better_epoch_ranks_lower(metric, worse):
    assert RESULT.rank(metric) < replace(RESULT, **worse).rank(metric)


@pytest.mark.parametrize("num_images", [1, 2, 7, 1000])
def test_loss_and_accuracy_are_those_of_scikit_learn(num_images):
    draws = torch.Generator().manual_seed(num_images)
    logits = torch.randn(num_images, 5, generator=draws) * 4
    labels = torch.randint(5, (num_images,), generator=draws)
    loss, accuracy = loss_and_accuracy(logits, labels)
    probs = torch.softmax(logits.double(), dim=1).numpy()
    assert loss == pytest.approx(log_loss(labels, probs, labels=range(5)), rel=1e-12)
    assert accuracy == accuracy_score(labels, logits.argmax(dim=1))


def test_a_sure_and_wrong_prediction_costs_its_margin_in_nats():
    loss, accuracy = loss_and_accuracy(torch.tensor([[1000.0, 0.0], [1000.0, 0.0]]), torch.tensor([0, 1]))
    assert (loss, accuracy) == (500.0, 0.5)
