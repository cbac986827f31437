"""Loss terms that act on each other, against sums written out by hand in float64."""

import itertools

import numpy as np
import pytest
import torch

from imgcls.config.keys import AugmentConfig, Experiment
from imgcls.config.train_keys import TrainConfig
from imgcls.data.augment import Augment, Normalise, cutmix, mixup
from imgcls.data.loader import Loader
from imgcls.rng import generator
from imgcls.run_record import RunRecord
from imgcls.runs.earlier_versions import other_loss
from imgcls.training.device import prepare_device
from imgcls.training.loop import Task, TrainState, fit
from imgcls.training.loss import loss_sum
from tests.data.make import decoded_images

W = torch.tensor([25.0, 0.5, 1.0, 0.1])
K = len(W)


def by_hand(logits, targets, class_weights, smoothing):
    """Image by image, class by class: smooth the target, then weigh the image by its own class or classes."""
    logits, targets = np.asarray(logits.detach(), np.float64), np.asarray(targets, np.float64)
    weights = np.ones(K) if class_weights is None else np.asarray(class_weights, np.float64)
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        log_normaliser = np.log(np.exp(row - row.max()).sum()) + row.max()
        image_weight = sum(share * weights[k] for k, share in enumerate(target))
        for k, share in enumerate(target):
            total += image_weight * (share * (1 - smoothing) + smoothing / K) * (log_normaliser - row[k])
    return total


def targets_of(mixing, labels):
    """float32 (B, K) as the loop makes them, or the labels themselves."""
    one_hot = torch.nn.functional.one_hot(labels, K).float()
    images, draws = torch.zeros(len(labels), 1, 8, 8), torch.Generator().manual_seed(3)
    if mixing == "none":
        return labels, one_hot
    mixed = {"mixup": mixup, "cutmix": cutmix}[mixing](images, one_hot, 1.0, draws)[1]
    assert ((mixed > 0.05) & (mixed < 0.95)).any()
    return mixed, mixed


PAIRS = list(itertools.product(("none", "mixup", "cutmix"), (None, W), (0.0, 0.05, 0.4)))


@pytest.mark.parametrize(("mixing", "class_weights", "smoothing"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_pair_of_terms_is_the_sum_written_out_by_hand(mixing, class_weights, smoothing, dtype):
    draws = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(32, K, generator=draws)).to(dtype)
    labels = torch.randint(K, (32,), generator=draws)
    given, targets = targets_of(mixing, labels)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = loss_sum(logits, given, class_weights, smoothing)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(by_hand(logits.float(), targets, class_weights, smoothing), rel=1e-5)


def blobs(sizes, image_size=8):
    """Grey images whose brightness tells their class, with noise; `sizes`: images of each class."""
    draws = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    pixels = draws.normal(
        90 + 60 * labels[:, None, None, None] / (len(sizes) - 1), 40, (len(labels), 1, image_size, image_size)
    )
    return decoded_images(pixels.clip(0, 255).astype(np.uint8), labels)


def linear(num_classes, image_size=8):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(image_size**2, num_classes))


def task_of(images, augment, class_weights, **train):
    config = TrainConfig(**{"device": "cpu", "threads": torch.get_num_threads(), "warmup_epochs": 0} | train)
    device = prepare_device(config)
    return Task(
        config=config, metric="val/accuracy", train=Loader(images, config.batch_size, device.torch_device),
        val=Loader(images, 256, device.torch_device), augment=Augment(augment, 8),
        normalise=Normalise((0.5,), (0.25,), device.torch_device), num_classes=int(images.labels.max()) + 1,
        class_weights=class_weights, device=device,
    )  # fmt: skip


@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_what_an_epoch_records_is_the_mean_of_such_sums_over_its_images(mixing, smoothing):
    """Through the loop itself, with a last batch that is smaller; the weights stay where they are."""
    images = blobs([40, 30, 20, 10])
    augment = AugmentConfig(horizontal_flip=False, **({} if mixing == "none" else {mixing: 1.0}))
    task = task_of(images, augment, W, epochs=1, batch_size=32, lr=1e-30, weight_decay=0.0, label_smoothing=smoothing)
    state = TrainState.start(linear(K), task.config, task.device)
    (result,) = fit(task, state)
    total = 0.0
    for step, batch in enumerate(task.train.shuffled(task.config.seed, 0)):
        views, targets = task.normalise(batch.images.float()), torch.nn.functional.one_hot(batch.labels, K).float()
        draws = generator(task.config.seed, 0, step, "mixup" if mixing == "mixup" else "cutmix")
        if mixing == "cutmix":
            torch.rand((), generator=draws)  # the coin between the two, tossed whether or not it is needed
        if mixing != "none":
            views, targets = {"mixup": mixup, "cutmix": cutmix}[mixing](views, targets, 1.0, draws)
        total += by_hand(state.model(views), targets, W, smoothing)
    assert result.train_loss == pytest.approx(total / len(images), rel=1e-5)


@pytest.mark.parametrize("softened", [{}, {"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
@pytest.mark.parametrize("smoothing", [0.0, 0.05])
def test_a_rare_class_does_not_take_all_images_when_it_is_weighed(softened, smoothing):
    """980 images of one class and 20 of another (pytorch issue 104776): every image was called rare."""
    images = blobs([980, 20])
    counts = np.bincount(images.labels)
    class_weights = torch.tensor(len(images) / (2 * counts), dtype=torch.float32)
    augment = AugmentConfig(horizontal_flip=False, **softened)
    task = task_of(images, augment, class_weights, epochs=5, lr=1e-2, label_smoothing=smoothing)
    *_, last = fit(task, TrainState.start(linear(2), task.config, task.device))
    assert last.val_accuracy > 0.95


@pytest.mark.parametrize(
    ("class_weights", "smoothing", "augment", "expected"),
    [
        ("none", 0.1, {}, False),
        ("none", 0.0, {"mixup": 1.0}, False),
        ("auto", 0.0, {}, False),
        ("auto", 0.0, {"cutout": 0.5}, False),
        ("auto", 0.05, {}, True),
        ("auto", 0.0, {"mixup": 0.2}, True),
        ("auto", 0.0, {"cutmix": 1.0}, True),
    ],
)
def test_the_earlier_loss_was_another_only_where_class_weights_met_soft_targets(
    class_weights, smoothing, augment, expected
):
    config = TrainConfig(class_weights=class_weights, label_smoothing=smoothing)
    experiment = Experiment(name="any", train=config, augment=AugmentConfig(**augment))
    for tags, is_other in (({}, expected), ({"imgcls.loss": "2"}, False)):
        record = RunRecord("id", "any", "run", "FINISHED", 0, {}, {}, tags)
        assert bool(other_loss(record, experiment)) == is_other
    logits, labels = torch.randn(16, K, generator=torch.Generator().manual_seed(0)), torch.arange(16) % K
    given, targets = targets_of(next(iter(set(augment) & {"mixup", "cutmix"}), "none"), labels)
    before = torch.nn.functional.cross_entropy(
        logits, given, weight=W if class_weights == "auto" else None, label_smoothing=smoothing, reduction="sum"
    )
    now = loss_sum(logits, given, W if class_weights == "auto" else None, smoothing)
    assert (abs(float(before - now)) > 0.1) == expected
    assert len(targets) == 16
