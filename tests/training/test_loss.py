"""Loss terms that act on each other, against sums written out by hand in float64."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from imgcls.config.keys import AugmentConfig, Experiment
from imgcls.config.train_keys import TrainConfig
from imgcls.data.augment import Augment, Normalise, cutmix, mixup
from imgcls.data.loader import Loader
from imgcls.rng import generator
from imgcls.run_record import RunRecord
from imgcls.runs.earlier_versions import other_loss
from imgcls.training.device import prepare_device
from imgcls.training.loop import Task, TrainState, fit
from imgcls.training.loss import Loss
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
        loss = Loss(smoothing, class_weights).sum(logits, given)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(by_hand(logits.float(), targets, class_weights, smoothing), rel=1e-5)


NUM_IMAGES = np.array([500, 30, 8, 2])
"""Train images of each class, from which the share of each is."""


def formula(loss, logits, targets, class_weights, smoothing):
    """The two losses of the papers, image by image and class by class in float64, with smoothed and mixed targets.

    Focal loss (Lin et al. 2017, equation 4): -(1 - p)^gamma log p. Logit adjustment (Menon et al. 2021, equation 10):
    -log(exp(f_y + tau log pi_y) / sum over y' of exp(f_y' + tau log pi_y')).
    """
    logits, targets = np.asarray(logits.detach(), np.float64), np.asarray(targets, np.float64)
    weights = np.ones(K) if class_weights is None else np.asarray(class_weights, np.float64)
    share, gamma, tau = NUM_IMAGES / NUM_IMAGES.sum(), 1.5, 0.8
    even = share**tau / (share**tau).sum() if loss == "logit_adjusted" else np.ones(K) / K
    total = 0.0
    for f, target in zip(logits, targets, strict=True):
        image_weight = sum(target * weights)
        for k in range(K):
            if loss == "focal":
                p = np.exp(f[k]) / np.exp(f).sum()
                of_class = -((1 - p) ** gamma) * np.log(p)
            else:
                of_class = np.log(
                    sum(np.exp(f[j]) * share[j] ** tau for j in range(K)) / (np.exp(f[k]) * share[k] ** tau)
                )
            total += image_weight * (target[k] * (1 - smoothing) + smoothing * even[k]) * of_class
    return total


def loss_of(loss, class_weights=None, **train):
    """As an experiment makes it; with class weights of our own."""
    config = TrainConfig(loss=loss, **{"focal_gamma": 1.5, "logit_adjustment": 0.8} | train)
    return replace(Loss.of(config, NUM_IMAGES, torch.device("cpu")), class_weights=class_weights)


@pytest.mark.parametrize("name", ["focal", "logit_adjusted"])
@pytest.mark.parametrize(("mixing", "class_weights", "smoothing"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_focal_and_logit_adjusted_are_the_formulas_of_the_papers(name, mixing, class_weights, smoothing, dtype):
    draws = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(32, K, generator=draws)).to(dtype)
    given, targets = targets_of(mixing, torch.randint(K, (32,), generator=draws))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = loss_of(name, class_weights, label_smoothing=smoothing).sum(logits, given)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(formula(name, logits.float(), targets, class_weights, smoothing), rel=1e-5)


def test_focal_loss_of_two_classes_is_that_of_torchvision():
    """Its one logit is the difference of our two: sigmoid(a - b) = softmax(a, b)."""
    draws = torch.Generator().manual_seed(1)
    logits, labels = 3 * torch.randn(64, 2, generator=draws), torch.randint(2, (64,), generator=draws)
    for gamma in (0.0, 0.5, 1.0, 2.0, 5.0):
        ours = Loss(gamma=gamma).sum(logits, labels)
        theirs = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.float(), alpha=-1, gamma=gamma, reduction="sum")
        assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_logit_adjusted_is_torchs_cross_entropy_of_shifted_logits():
    logits, labels = torch.randn(64, K, generator=torch.Generator().manual_seed(2)), torch.arange(64) % K
    shifted = logits + 0.8 * torch.tensor(NUM_IMAGES / NUM_IMAGES.sum()).log().float()
    theirs = torch.nn.functional.cross_entropy(shifted, labels, reduction="sum")
    assert float(loss_of("logit_adjusted", label_smoothing=0.0).sum(logits, labels)) == pytest.approx(float(theirs))


@pytest.mark.parametrize(
    "off", [{"loss": "focal", "focal_gamma": 0.0}, {"loss": "logit_adjusted", "logit_adjustment": 0.0}]
)
@pytest.mark.parametrize(("mixing", "class_weights", "smoothing"), PAIRS)
def test_with_gamma_or_tau_0_both_are_the_cross_entropy(off, mixing, class_weights, smoothing):
    draws = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(32, K, generator=draws)
    given, _ = targets_of(mixing, torch.randint(K, (32,), generator=draws))
    plain = Loss(smoothing, class_weights).sum(logits, given)
    same = loss_of(class_weights=class_weights, label_smoothing=smoothing, **off).sum(logits, given)
    assert torch.equal(same, plain) if off["loss"] == "focal" else float(same) == pytest.approx(float(plain), rel=1e-6)


@pytest.mark.parametrize(
    "loss", [Loss(0.1, W, gamma=2.0), Loss(gamma=0.5), Loss(0.1, shift=torch.tensor([0.0, -1, -3, -5]))]
)
@pytest.mark.parametrize("mixing", ["none", "mixup"])
def test_gradients_are_those_of_finite_differences(loss, mixing):
    draws = torch.Generator().manual_seed(5)
    logits = torch.randn(6, K, generator=draws, requires_grad=True)
    given, _ = targets_of(mixing, torch.randint(K, (6,), generator=draws))
    (gradient,) = torch.autograd.grad(loss.sum(logits, given), logits)
    for row, k in itertools.product(range(6), range(K)):
        ends = []
        for step in (-0.02, 0.02):
            moved = logits.detach().clone()
            moved[row, k] += step
            ends.append(float(loss.sum(moved, given)))
        assert (ends[1] - ends[0]) / 0.04 == pytest.approx(float(gradient[row, k]), rel=5e-3, abs=5e-3)


@pytest.mark.cuda
@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="only a CUDA device computes while the program goes on, so only there it waits",
)
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "logit_adjusted"])
@pytest.mark.parametrize(("mixing", "class_weights", "smoothing"), PAIRS)
def test_cuda_is_not_waited_for(loss, mixing, class_weights, smoothing):
    device, draws = torch.device("cuda"), torch.Generator().manual_seed(6)
    logits = torch.randn(32, K, generator=draws)
    given, _ = targets_of(mixing, torch.randint(K, (32,), generator=draws))
    weights = None if class_weights is None else class_weights.to(device)
    config = TrainConfig(loss=loss, label_smoothing=smoothing)
    there = replace(Loss.of(config, NUM_IMAGES, device), class_weights=weights)
    on_device, targets = logits.to(device).requires_grad_(), given.to(device)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = there.sum(on_device, targets)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    here = replace(Loss.of(config, NUM_IMAGES, torch.device("cpu")), class_weights=class_weights)
    assert value.item() == pytest.approx(float(here.sum(logits, given)), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_and_its_gradient_are_finite_where_a_probability_is_1_or_0(gamma, smoothing):
    logits = torch.tensor([[200.0, 0, -200, 0], [200.0, 0, -200, 0]], requires_grad=True)
    loss = Loss(smoothing, gamma=gamma).sum(logits, torch.tensor([0, 2]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and gradient.isfinite().all()
    if not smoothing:
        assert loss.item() == pytest.approx(400.0)
        assert gradient[0].tolist() == [0.0] * K


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.4])
@pytest.mark.parametrize("tau", [0.5, 1.0, 1.5])
def test_the_logits_that_the_adjusted_loss_ends_at_rank_classes_as_if_they_were_equally_frequent(tau, smoothing):
    """Also with smoothing: the optimum is found by descent for an image whose true probabilities are known."""
    share = NUM_IMAGES / NUM_IMAGES.sum()
    rng = np.random.default_rng(7)
    posterior = torch.tensor(rng.dirichlet(np.ones(K), 40) * share, dtype=torch.float32)
    posterior = torch.cat([posterior / posterior.sum(dim=1, keepdim=True), torch.eye(K)])  # and images that are certain
    loss = loss_of("logit_adjusted", logit_adjustment=tau, label_smoothing=smoothing)
    logits = torch.zeros_like(posterior, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=300, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = loss.sum(logits, posterior)
        value.backward()
        return value

    optimizer.step(closure)
    expected = (posterior / torch.tensor(share).float() ** tau).argmax(dim=1)
    assert (logits.argmax(dim=1) == expected).all()


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
        loss=Loss(config.label_smoothing, class_weights), device=device,
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
    now = Loss(smoothing, W if class_weights == "auto" else None).sum(logits, given)
    assert (abs(float(before - now)) > 0.1) == expected
    assert len(targets) == 16
