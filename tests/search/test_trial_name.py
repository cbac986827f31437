"""The name of a trial's run says what the trial was, in little room."""

import pytest

from imgcls.search.trial import trial_name


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"train.lr": 0.0016, "model.depth": 18}, "trial 1 · lr 1.6e-3 · depth 18"),
        ({"train.lr": 0.014113542549831064}, "trial 1 · lr 0.0141"),
        ({"train.weight_decay": 0.0, "model.stem": "small"}, "trial 1 · weight_decay 0 · stem small"),
        ({"augment.mixup": 0.25, "augment.vertical_flip": True}, "trial 1 · mixup 0.25 · vertical_flip true"),
        ({"data.seed": 3, "train.seed": 4, "train.lr": 1e-5}, "trial 1 · data.seed 3 · train.seed 4 · lr 1e-5"),
        ({"train.lr": 1234.6}, "trial 1 · lr 1235"),
        ({"train.lr": 12345.6}, "trial 1 · lr 1.23e4"),
        ({"train.lr": float("inf"), "augment.mixup": float("nan")}, "trial 1 · lr inf · mixup nan"),
        ({}, "trial 1"),
    ],
)
def test_a_trial_is_named_by_what_was_drawn_for_it(values, name):
    assert trial_name(1, values) == name
