"""How a run was trained, in the words of a methods section, from its params and tags alone."""

import pytest

from imgcls.reporting.methods_section import methods, split_words
from tests.reporting.records import record


def said(params=None, **tags):
    return " ".join(methods(record("run1", "train", params=params, metrics={"best/epoch": 8.0}, **tags)))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "Training started from random weights."),
        ({"model.weights": "package:lite0"}, 'Training started from the weights "package:lite0".'),
        (
            {"model.weights": "package:lite0", "train.head_only": True},
            'the weights "package:lite0", of which the last layer alone was trained, on stored features of the rest.',
        ),
        (
            {"model.weights": "w", "train.head_only": True, "augment.mixup": 0.2},
            "horizontal flips, mixup (alpha 0.2); features were mixed, not images.",
        ),
        ({"train.epochs": 3, "train.warmup_epochs": 1}, "over 3 epochs, of which the first 1 is warm-up;"),
        ({"train.epochs": 30, "train.warmup_epochs": 3}, "over 30 epochs, of which the first 3 are warm-up;"),
        (
            {"train.epochs": 1, "train.warmup_epochs": 0},
            "over 1 epoch; the learning rate falls along half a cosine from the first step on. The seed",
        ),
        ({"train.warmup_epochs": 2}, "rises in a line during warm-up and falls along half a cosine after it. The seed"),
        ({"train.epochs": 9, "train.score_epoch": 4}, "of which the first 1 is warm-up, left after epoch 4"),
        ({"train.patience": 5}, "to end early after 5 epochs without a better val score"),
        ({"train.lr": 0.003, "train.batch_size": 32}, "highest learning rate 0.003, weight decay 0.05, batches of 32"),
        ({}, "The optimiser was AdamW (highest"),
        (
            {"train.optimizer": "sgd", "train.momentum": 0.8},
            "The optimiser was SGD with Nesterov momentum 0.8 (highest",
        ),
        ({"train.optimizer": "sgd", "train.momentum": 0.0}, "The optimiser was SGD without momentum (highest"),
        (
            {"model.weights": "w.pt", "train.freeze_epochs": 2},
            "In the first 2 epochs the last layer alone was trained.",
        ),
        ({"train.backbone_lr_scale": 0.1}, "The layers before the last one had 0.1 times the learning rate."),
        (
            {"train.layer_decay": 0.7},
            "From each block to the one before it the learning rate was multiplied by 0.7. The",
        ),
        ({"train.label_smoothing": 0.1}, "cross-entropy with label smoothing 0.1, no class weights"),
        ({"train.label_smoothing": 0.0}, "cross-entropy with no label smoothing, no class weights"),
        ({"train.class_weights": "auto"}, "classes weighed by the inverse of their number of train images"),
        ({"train.loss": "cross_entropy"}, "The loss was the cross-entropy with label smoothing"),
        ({"train.loss": "focal", "train.focal_gamma": 1.5}, "The loss was the focal loss (gamma 1.5) with label"),
        (
            {"train.loss": "logit_adjusted", "train.logit_adjustment": 1.0, "train.label_smoothing": 0.1},
            "was the logit-adjusted cross-entropy (tau 1) with label smoothing 0.1 spread as the classes are in train,",
        ),
        (
            {"train.loss": "logit_adjusted", "train.logit_adjustment": 0.5, "train.label_smoothing": 0.1},
            "label smoothing 0.1 spread as the classes are in train, their shares to the power 0.5, no class weights",
        ),
        (
            {"train.loss": "logit_adjusted", "train.logit_adjustment": 0.0, "train.label_smoothing": 0.1},
            "label smoothing 0.1, no class weights",
        ),
        (
            {"train.sampling": "balanced"},
            "no class weights; in each epoch as many images as train has were drawn, each",
        ),
        ({"train.sampling": "natural"}, "no class weights; no averaging of weights"),
        ({}, "The largest centred square of each image was used."),
        ({"data.fit": "pad"}, "Each image was used whole, between bars of grey (level 128)."),
        ({"data.fit": "squash"}, "Each image was used whole, stretched to a square."),
        ({"train.ema_decay": 0.999}, "weights averaged with decay 0.999 a step"),
        ({}, "no averaging of weights"),
        (
            {"train.average_epochs": 5},
            "; the mean of weights at the ends of 5 epochs up to the kept one.",
        ),
        ({"train.average_epochs": 20}, "the mean of weights at the ends of 8 epochs up to the kept one."),
        (
            {"train.ema_decay": 0.9, "train.average_epochs": 2},
            "weights averaged with decay 0.9 a step, then the mean of these averages at the ends of 2 epochs up to",
        ),
        (
            {"data.test_views": "flips"},
            "saw each image of val and test as it was and mirrored left and right, and",
        ),
        ({"data.test_views": "orientations"}, "in all eight orientations of the square, and answered with the mean of"),
        ({"model.dropout": 0.2}, "dropout 0.2 before the last layer"),
        ({}, "augmented by horizontal flips."),
        ({"augment.horizontal_flip": False}, "Train images were not augmented."),
        ({"augment.random_resized_crop": [0.25, 1.0]}, "random crops of 0.25 to 1 of the area (width / height 0.75 "),
        ({"augment.mixup": 0.2, "augment.cutmix": 1.0}, "horizontal flips, mixup (alpha 0.2), cutmix (alpha 1)."),
        ({"augment.rotation": 10, "augment.shift": 0.1}, "rotations by up to 10 degrees, shifts by up to 0.1 of the"),
        ({"augment.brightness": 0.3, "augment.cutout": 0.5}, "brightness varied by up to 0.3, cutout of 0.5 of the"),
    ],
)
def test_what_a_run_was_trained_with_is_named(params, words):
    assert words in said(params)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({}, "on cpu: AMD EPYC, 2 threads with python 3.11.7, torch 2.14.1. The code was imgcls 0.1.0, commit 01234"),
        ({"device": "cpu: AMD EPYC, 1 threads"}, "on cpu: AMD EPYC, 1 thread with python 3.11.7"),
        ({"git_dirty": "true"}, "commit 0123456789ab with changes that are not committed."),
        ({"git_dirty": "unknown"}, "commit 0123456789ab; whether files differed from it is not known."),
        ({"git_commit": ""}, "at an unknown commit."),
        ({"git_commit": "unknown", "git_unknown": "no git"}, "at an unknown commit (no git)."),
    ],
)
def test_where_it_ran_and_what_is_unknown_is_said(tags, words):
    assert words in said(**tags)


EARLIER = {"squares": 1, "loss": 1}
CROP, WEIGHTS = {"augment.random_resized_crop": [0.25, 1.0]}, {"train.class_weights": "auto"}


@pytest.mark.parametrize(
    ("params", "words", "is_said"),
    [
        (CROP, "square of each image was used; val and test were resized from train's larger squares.", True),
        ({}, "train's larger squares", False),
        (WEIGHTS, "each class's share of every smoothed or mixed label weighed by the inverse of their number", True),
        (WEIGHTS | {"train.label_smoothing": 0.0}, "each class's share", False),
        (WEIGHTS | {"train.label_smoothing": 0.0, "augment.mixup": 0.2}, "each class's share", True),
        ({}, "each class's share", False),
    ],
)
def test_what_an_earlier_version_made_otherwise_is_said_of_its_runs_alone(params, words, is_said):
    assert (words in said(params, **EARLIER)) == is_said
    assert words not in said(params)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, ""),
        ({"train.loss": "focal", "train.focal_gamma": 2.0}, ""),
        ({"train.loss": "logit_adjusted", "train.logit_adjustment": 0.0}, ""),
        (
            {"train.loss": "logit_adjusted", "train.logit_adjustment": 1.0},
            "hold where every class is equally frequent.",
        ),
        (
            {"train.loss": "logit_adjusted", "train.logit_adjustment": 0.7},
            "hold where classes are as frequent as their shares of train to the power 0.3.",
        ),
        ({"train.sampling": "balanced"}, "hold where every class is equally frequent."),
        (WEIGHTS, "hold where every class is equally frequent."),
    ],
)
def test_what_the_probabilities_hold_for_is_said_where_it_is_not_what_train_holds(params, words):
    assert ("Its probabilities" in said(params)) == bool(words)
    assert words in said(params)


def test_splits_have_their_sizes_and_where_they_came_from():
    assert split_words(record("run1", "train")) == "1500 train, 300 val, 656 test"
    origins = '{"val": "carved from train by content, 15%"}'
    run = record("run1", "train", split_origins=origins)
    assert split_words(run) == (
        "1500 train, 300 val, 656 test; val: carved from train by content, 15%; test: as the source has it"
    )
