import hashlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.config.train_keys import TrainConfig
from imgcls.data.augment import Augment, Normalise, cutmix, cutout, mixup
from imgcls.data.loader import Loader
from imgcls.data.splits import load_dataset
from imgcls.errors import TrainingError
from imgcls.metrics import val_scores
from imgcls.models.resnet import resnet
from imgcls.project import Project
from imgcls.rng import derive_seed, generator
from imgcls.statistics.predictions import Predictions
from imgcls.training import loop
from imgcls.training.checkpoint import load_checkpoint, save_checkpoint
from imgcls.training.device import prepare_device
from imgcls.training.loop import Task, TrainState, fit, predict
from imgcls.training.loss import Loss

NUM_TRAIN, NUM_VAL = 150, 60
STILL = {"lr": 1e-30, "weight_decay": 0.0, "warmup_epochs": 0}
"""Settings under which the weights keep their bits, so that a loss can be computed again afterwards."""
PLAIN = AugmentConfig(horizontal_flip=False)
EVERYTHING = AugmentConfig(
    random_resized_crop=(0.6, 1.0), vertical_flip=True, quarter_turns=True, rotation=10.0, shift=0.1, brightness=0.2,
    contrast=0.2, cutout=0.3, mixup=0.4, cutmix=1.0,
)  # fmt: skip


def load_digits():
    """Real images: the first of the train and val splits of scikit-learn's digits."""
    dataset = load_dataset(DataConfig(source="digits", image_size=8), PLAIN, Project(Path()))
    return replace(dataset, train=dataset.train.rows(range(NUM_TRAIN)), val=dataset.val.rows(range(NUM_VAL)))


def task_of(digits, augment=PLAIN, metric="val/accuracy", class_weights=None, num_train=NUM_TRAIN, **train):
    config = TrainConfig(**{"epochs": 2, "lr": 1e-2, "device": "cpu", "threads": 1, "seed": 5} | train)
    device = prepare_device(config)
    where, images = device.torch_device, digits.train.rows(range(num_train))
    loss = Loss.of(config, np.bincount(images.labels, minlength=10), where)
    return Task(
        config=config,
        metric=metric,
        train=Loader(images, config.batch_size, where, is_balanced=config.sampling == "balanced"),
        val=Loader(digits.val, config.eval_batch_size, where),
        augment=Augment(augment, 8),
        normalise=Normalise(digits.mean, digits.std, where),
        num_classes=10,
        loss=loss if class_weights is None else replace(loss, class_weights=class_weights.to(where)),
        device=device,
    )


def main():
    """For another process: trains, and prints the digest of the weights."""
    task = task_of(load_digits(), EVERYTHING, ema_decay=0.9)
    state = start(task)
    list(fit(task, state))
    print(weights(state))


def start(task, seed=0, dropout=0.1, width=16):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = resnet(depth=8, width=width, stem="small", num_classes=10, channels=1, dropout=dropout)
    return TrainState.start(model, task.config, task.device)


def curve(results):
    """What must repeat bit for bit: everything but timings."""
    return [replace(result, seconds=0.0, images_per_second=0.0, ended=0) for result in results]


def weights(state):
    """Bytes of every tensor that a step can change."""
    snapshot = state.snapshot()
    tensors = [*snapshot["model"].values(), *(snapshot["average"] or {}).values()]
    tensors += [moment for moments in snapshot["optimizer"]["state"].values() for moment in moments.values()]
    return hashlib.sha256(b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in tensors)).hexdigest()


def after(num_steps):
    """should_stop: True after so many steps."""
    left = iter([False] * (num_steps - 1) + [True])
    return lambda: next(left)


def images_of(task, epoch=0):
    """What the model sees of each train batch in the epoch, and the labels."""
    for batch in task.train.shuffled(task.config.seed, epoch):
        yield task.normalise(batch.images.float()), batch.labels


# --- the same run twice, in one go or in pieces ---

VARIANTS = {
    "plain": (PLAIN, {}),
    "everything": (EVERYTHING, {"ema_decay": 0.9, "label_smoothing": 0.1}),
    "balanced": (PLAIN, {"sampling": "balanced", "loss": "focal"}),
    "adjusted": (EVERYTHING, {"loss": "logit_adjusted", "label_smoothing": 0.1}),
    "sgd and averages": (PLAIN, {"optimizer": "sgd", "ema_decay": 0.9, "average_epochs": 2}),
}


@pytest.mark.parametrize(
    ("variant", "threads", "epochs"), [("plain", 1, 2), ("everything", 1, 2), ("everything", 2, 1)]
)
def test_the_same_run_twice_gives_the_same_bits(make_task, variant, threads, epochs):
    augment, train = VARIANTS[variant]
    task = make_task(augment, threads=threads, epochs=epochs, warmup_epochs=0, **train)
    first, second = start(task), start(task)
    results = list(fit(task, first))
    torch.manual_seed(99)  # what others draw meanwhile does not matter
    repeated = list(fit(task, second, on_step=lambda _: torch.rand(3)))
    assert curve(results) == curve(repeated)
    assert weights(first) == weights(second)


def test_another_seed_gives_other_bits(make_task):
    results = [curve(fit(task, start(task))) for task in (make_task(seed=0), make_task(seed=1))]
    assert results[0] != results[1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopping_after_any_step_and_going_on_from_a_checkpoint_changes_no_bit(make_task, tmp_path, variant):
    augment, train = VARIANTS[variant]
    task = make_task(augment, **train)
    whole = start(task)
    expected = curve(fit(task, whole))
    assert task.total_steps == 6
    for num_steps in range(1, task.total_steps + 1):
        stopped = start(task)
        before = list(fit(task, stopped, after(num_steps)))
        assert stopped.epoch * 3 + stopped.step == num_steps
        save_checkpoint(tmp_path / "last.pt", stopped.snapshot())
        resumed = start(task, seed=num_steps)  # other weights, all of which must be replaced
        resumed.restore(load_checkpoint(tmp_path / "last.pt"))
        assert curve(before) == curve(resumed.history)
        rest = list(fit(task, resumed))
        assert curve(before + rest) == curve(resumed.history) == expected
        assert weights(resumed) == weights(whole)
        assert torch.equal(resumed.val_logits, whole.val_logits)


def test_stopping_after_every_step_changes_no_bit(make_task, tmp_path):
    task = make_task(EVERYTHING, ema_decay=0.9)
    whole, state = start(task), start(task)
    expected = curve(fit(task, whole))
    num_sittings = 0
    while state.epoch < task.config.epochs:
        list(fit(task, state, should_stop=lambda: True))
        if state.epoch < task.config.epochs:
            save_checkpoint(tmp_path / "last.pt", state.snapshot())
            state = start(task, seed=num_sittings)
            state.restore(load_checkpoint(tmp_path / "last.pt"))
        num_sittings += 1
    assert num_sittings == task.total_steps + 1  # the last one has no step left but has to validate
    assert curve(state.history) == expected
    assert weights(state) == weights(whole)


def test_leaving_the_generator_between_epochs_is_a_stop_too(make_task):
    task = make_task()
    whole, state = start(task), start(task)
    first = next(fit(task, state))
    assert curve([first, *fit(task, state)]) == curve(fit(task, whole))
    assert weights(state) == weights(whole)


@pytest.mark.slow
def test_another_process_gives_the_same_bits(digits):
    task = task_of(digits, EVERYTHING, ema_decay=0.9)
    state = start(task)
    list(fit(task, state))
    environment = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": str(Path(__file__).parents[2])}
    script = "from tests.training import test_loop; test_loop.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split()[-1] == weights(state)


# --- what an epoch's numbers mean ---


def hand_loss(task, state, per_image):
    """Mean over all train images of `per_image(logits, labels)`, batches seen as in training, weights unmoved."""
    state.model.train()
    with torch.no_grad():
        losses = [per_image(state.model(images), labels) for images, labels in images_of(task)]
    return losses, float(torch.cat(losses).double().mean())


def test_a_ragged_last_batch_counts_by_its_images(make_task):
    task = make_task(epochs=1, batch_size=64, label_smoothing=0.0, **STILL)
    state = start(task, dropout=0.0)
    (result,) = fit(task, state)
    losses, mean = hand_loss(task, state, lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"))
    assert [len(loss) for loss in losses] == [64, 64, 22]
    assert result.train_loss == pytest.approx(mean, rel=1e-6)
    mean_of_means = sum(float(loss.mean()) for loss in losses) / 3
    assert abs(mean - mean_of_means) > 1e-4  # so the test can tell the two apart


def test_a_last_batch_of_one_image_is_part_of_the_one_before(make_task):
    task = make_task(epochs=3, num_train=129, warmup_epochs=0)
    steps = []
    list(fit(task, start(task), on_step=lambda state: steps.append(state.num_images)))
    assert steps == [64, 129] * 3
    assert len(steps) == task.total_steps


@pytest.mark.parametrize("eval_batch_size", [7, 60, 256])
def test_val_scores_are_those_of_scikit_learn(make_task, digits, eval_batch_size):
    task = make_task(EVERYTHING, epochs=2, eval_batch_size=eval_batch_size, label_smoothing=0.3, class_weights=W)
    state = start(task)
    *_, result = fit(task, state)
    model = state.model.eval()
    with torch.no_grad():
        logits = model(task.normalise(torch.from_numpy(np.array(digits.val.pixels))))
    probs = torch.softmax(logits.double(), dim=1).numpy()
    assert result.val_accuracy == accuracy_score(digits.val.labels, probs.argmax(axis=1))
    assert result.val_loss == pytest.approx(log_loss(digits.val.labels, probs, labels=range(10)), rel=1e-6)


def test_val_scores_do_not_depend_on_the_batch_size_beyond_rounding(make_task):
    results = [list(fit(task, start(task)))[-1] for task in (make_task(eval_batch_size=n) for n in (1, 13, 60))]
    assert len({result.val_accuracy for result in results}) == 1
    assert [result.val_loss for result in results] == pytest.approx([results[0].val_loss] * 3, rel=1e-6)


def test_predictions_stand_in_the_order_of_the_split(make_task, digits):
    task = make_task()
    model = start(task).model
    logits = predict(model, task.val, task.normalise, task.device)
    alone = [
        predict(model, Loader(digits.val.rows([i]), 1, torch.device("cpu")), task.normalise, task.device)
        for i in (0, 31, 59)
    ]
    torch.testing.assert_close(logits[[0, 31, 59]], torch.cat(alone))
    assert logits.shape == (NUM_VAL, 10)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


def test_an_epoch_says_how_long_it_took_and_how_fast_it_was(make_task):
    task = make_task()
    for result in fit(task, start(task)):
        assert 0 < NUM_TRAIN / result.images_per_second < result.seconds


def test_the_time_before_a_stop_counts(make_task):
    """With one step an epoch, the epoch's whole training time lies before the stop."""
    task = make_task(batch_size=256)
    state = start(task)
    assert list(fit(task, state, should_stop=lambda: True)) == []
    assert (state.epoch, state.step) == (0, 1)
    assert state.seconds > 0
    resumed = start(task)
    resumed.restore(state.snapshot())
    results = list(fit(task, resumed))
    assert curve(results) == curve(fit(task, start(task)))


# --- the step ---


def one_step(make_task, per_image, **options):
    """One step on all images at once -> the gradients it used, and those of a loss written out by hand."""
    task = make_task(epochs=1, batch_size=256, **STILL | options)
    state = start(task, dropout=0.0)
    hand = start(task, dropout=0.0).model
    (result,) = fit(task, state)
    ((images, labels),) = images_of(task)
    loss = per_image(task, hand.train(), images, labels).mean()
    loss.backward()
    assert result.train_loss == pytest.approx(float(loss.detach()), rel=1e-6)
    used = {name: p.grad for name, p in state.model.named_parameters()}
    written = {name: p.grad for name, p in hand.named_parameters()}
    torch.testing.assert_close(used, written)


W = torch.linspace(0.5, 2.0, 10)


def test_the_loss_is_cross_entropy(make_task):
    one_step(
        make_task,
        lambda _, model, images, labels: -model(images).log_softmax(1).gather(1, labels[:, None]).squeeze(1),
        label_smoothing=0.0,
    )


def test_label_smoothing_spreads_a_share_evenly(make_task):
    def by_hand(_, model, images, labels):
        log_probs = model(images).log_softmax(1)
        return -0.8 * log_probs.gather(1, labels[:, None]).squeeze(1) - 0.2 * log_probs.mean(1)

    one_step(make_task, by_hand, label_smoothing=0.2)


def test_label_smoothing_is_that_of_torch(make_task):
    torchs = nn.CrossEntropyLoss(label_smoothing=0.2, reduction="none")
    one_step(make_task, lambda _, model, images, labels: torchs(model(images), labels), label_smoothing=0.2)


def test_class_weights_weigh_each_image_by_its_class(make_task):
    one_step(
        make_task,
        lambda _, model, images, labels: W[labels] * F.cross_entropy(model(images), labels, reduction="none"),
        label_smoothing=0.0,
        class_weights=W,
    )


def test_with_class_weights_too_the_loss_is_a_sum_over_images(make_task):
    """Torch's own mean divides by the weights of the batch, so the epoch's loss would depend on its company."""
    task = make_task(epochs=1, label_smoothing=0.0, class_weights=W, **STILL)
    state = start(task, dropout=0.0)
    (result,) = fit(task, state)
    _, mean = hand_loss(task, state, lambda logits, y: W[y] * F.cross_entropy(logits, y, reduction="none"))
    assert result.train_loss == pytest.approx(mean, rel=1e-6)


def test_mixup_mixes_images_and_targets_alike(make_task):
    def by_hand(task, model, images, labels):
        targets = F.one_hot(labels, 10).float()
        images, targets = mixup(images, targets, 4.0, generator(task.config.seed, 0, 0, "mixup"))
        assert ((targets > 0.1) & (targets < 0.9)).any()
        return -(targets * model(images).log_softmax(1)).sum(1)

    one_step(make_task, by_hand, label_smoothing=0.0, augment=AugmentConfig(horizontal_flip=False, mixup=4.0))


def test_cutmix_is_of_images_already_cut_out_and_mixes_targets_alike(make_task):
    def by_hand(task, model, images, labels):
        images = cutout(images, 0.4, generator(task.config.seed, 0, 0, "cutout"))
        draws = generator(task.config.seed, 0, 0, "cutmix")
        torch.rand((), generator=draws)  # the coin between mixup and cutmix, tossed whether or not it is needed
        images, targets = cutmix(images, F.one_hot(labels, 10).float(), 1.0, draws)
        assert ((targets > 0.1) & (targets < 0.9)).any()
        return -(targets * model(images).log_softmax(1)).sum(1)

    augment = AugmentConfig(horizontal_flip=False, cutout=0.4, cutmix=1.0)
    one_step(make_task, by_hand, label_smoothing=0.0, augment=augment)


def test_with_both_mixup_and_cutmix_half_of_the_batches_get_each(make_task):
    """And each such batch is what it would be with that one alone."""
    tasks = [
        make_task(AugmentConfig(horizontal_flip=False, **alphas))
        for alphas in ({"mixup": 0.4, "cutmix": 1.0}, {"mixup": 0.4}, {"cutmix": 1.0})
    ]
    batch = next(tasks[0].train.shuffled(5, 0))
    images = tasks[0].normalise(batch.images)
    num_boxes = 0
    for step in range(400):
        both, mixed, pasted = (
            task.augment.mixed(images, batch.labels, task.num_classes, partial(generator, task.config.seed, 0, step))[0]
            for task in tasks
        )
        assert torch.equal(both, mixed) != torch.equal(both, pasted)
        num_boxes += torch.equal(both, pasted)
    assert binomtest(num_boxes, 400).pvalue > 0.01


def test_batches_and_augmentation_are_drawn_by_epoch_and_step(make_task):
    task = make_task(EVERYTHING)
    seeds, batches = [], []

    class Spy(Augment):
        def __call__(self, images, draws, part=None):
            seeds.append(draws.initial_seed())
            batches.append(images)
            return super().__call__(images, draws, part)

    list(fit(replace(task, augment=Spy(EVERYTHING, 8)), start(task)))
    assert seeds == [derive_seed(5, epoch, step, "augment") for epoch in (0, 1) for step in (0, 1, 2)]
    expected = [batch.images for epoch in (0, 1) for batch in task.train.shuffled(5, epoch)]
    assert all(map(torch.equal, batches, expected))
    assert not torch.equal(batches[0], batches[3])


def test_norms_and_biases_do_not_decay(make_task):
    task = make_task(weight_decay=0.25)
    state = start(task)
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    for p in state.model.parameters():
        p.grad = torch.zeros_like(p)
    state.optimizer.step()
    free = set()
    for name, p in state.model.named_parameters():
        if name.endswith(".bias") or ".bn" in f".{name}" or "downsample.1" in name:
            assert torch.equal(p, before[name]), name
            free.add(name)
        else:
            torch.testing.assert_close(p.detach(), before[name] * (1 - 1e-2 * 0.25))
            assert p.ndim >= 2
    assert {"bn1.weight", "bn1.bias", "fc.bias", "layer2.0.downsample.1.weight"} <= free
    assert "fc.weight" not in free


def test_frozen_parameters_stay_out_of_the_optimizer(make_task):
    task = make_task()
    model = resnet(8, 4, "small", 10, 1)
    model.conv1.weight.requires_grad_(False)
    state = TrainState.start(model, task.config, task.device)
    optimized = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in model.parameters()} - {id(model.conv1.weight)}


def test_each_step_uses_the_rate_of_the_schedule(make_task):
    task = make_task(epochs=3, warmup_epochs=1, lr=0.03)
    state = start(task)
    used = []
    state.optimizer.register_step_pre_hook(
        lambda optimizer, *_: used.append({group["lr"] for group in optimizer.param_groups})
    )
    results = list(fit(task, state))
    expected = [0.01, 0.02, 0.03] + [0.03 * 0.5 * (1 + math.cos(math.pi * k / 6)) for k in range(6)]
    assert [rate for rates in used for rate in rates] == pytest.approx(expected, rel=1e-12)
    assert [result.lr for result in results] == pytest.approx([expected[2], expected[5], expected[8]], rel=1e-12)


def test_batch_norm_learns_in_training_and_rests_in_validation(make_task):
    task = make_task(**STILL)
    state = start(task)
    steps = iter(fit(task, state))
    next(steps)
    assert not state.model.training
    seen = int(state.model.bn1.num_batches_tracked)
    assert seen == 3
    next(steps)
    assert int(state.model.bn1.num_batches_tracked) == 6


# --- the average of the weights ---


def test_the_average_is_the_one_computed_by_hand(make_task):
    task = make_task(EVERYTHING, ema_decay=0.7)
    state = start(task)
    averages = {}

    def average(state):
        done = 3 * state.epoch + state.step
        decay = min(0.7, done / (9 + done)) if done > 1 else 0.0
        for name, value in state.model.state_dict().items():
            average = averages.get(name, torch.zeros_like(value, dtype=torch.float64))
            averages[name] = average * decay + value.double() * (1 - decay)

    *_, result = fit(task, state, on_step=average)
    scored = state.scored_model.state_dict()
    counts = {name for name in scored if name.endswith("num_batches_tracked")}
    for name in scored.keys() - counts:
        torch.testing.assert_close(scored[name], averages[name].float())
    assert all(int(scored[name]) == 6 for name in counts)
    assert not torch.equal(scored["fc.weight"], state.model.fc.weight)
    logits = predict(state.scored_model, task.val, task.normalise, task.device)
    assert torch.equal(logits, state.val_logits)
    assert result.val == val_scores(Predictions(logits.numpy(), task.val.labels.numpy()), task.metric)


def test_without_an_average_the_model_itself_is_scored(make_task):
    state = start(make_task())
    assert state.average is None
    assert state.scored_model is state.model


# --- the end ---


NAMES = ("val/loss", "val/accuracy", "val/macro_f1")


@pytest.fixture
def scripted(monkeypatch):
    """Lets val scores be what the script says."""

    def play(scores):
        script = iter(scores)
        monkeypatch.setattr(loop, "val_scores", lambda *_: dict(zip(NAMES, next(script), strict=False)))

    return play


@pytest.mark.parametrize(
    ("metric", "patience", "scores", "num_epochs"),
    [
        ("val/accuracy", 0, [(1.0, 0.9)] + [(1.0, 0.1)] * 7, 8),
        ("val/accuracy", 1, [(1.0, 0.5), (1.0, 0.6), (0.5, 0.5)], 3),
        ("val/accuracy", 2, [(1.0, 0.5), (1.0, 0.6), (0.5, 0.5), (0.5, 0.5)], 4),
        ("val/accuracy", 2, [(1.0, 0.5), (0.9, 0.5), (0.8, 0.5), (0.8, 0.5), (0.8, 0.5)], 5),  # a lower loss is better
        ("val/loss", 2, [(1.0, 0.5), (0.9, 0.6), (0.95, 0.7), (0.9, 0.8)], 4),
        ("val/loss", 3, [(1.0, 0.5), (0.9, 0.6)] + [(0.9, 0.9)] * 3, 5),
        ("val/loss", 9, [(1.0, 0.5)] * 8, 8),
        ("val/macro_f1", 2, [(1.0, 0.5, 0.5), (0.9, 0.6, 0.4), (0.8, 0.7, 0.3), (0.7, 0.8, 0.2)], 3),
        ("val/macro_f1", 2, [(1.0, 0.9, 0.5), (1.1, 0.8, 0.6), (1.2, 0.7, 0.55), (1.3, 0.6, 0.5), (1, 0.5, 0.4)], 4),
    ],
)
def test_patience_counts_epochs_without_a_better_val_score(make_task, scripted, metric, patience, scores, num_epochs):
    task = make_task(epochs=8, patience=patience, metric=metric, batch_size=256)
    state = start(task)
    scripted(scores)
    results = list(fit(task, state))
    assert [result.epoch for result in results] == list(range(1, num_epochs + 1))
    assert list(fit(task, state)) == []  # over is over
    assert state.best(metric) is min(results, key=lambda result: result.rank(metric))


def test_patience_goes_on_counting_after_a_stop(make_task, scripted):
    task = make_task(epochs=8, patience=2, batch_size=256)
    scripted([(1.0, 0.5), (1.0, 0.4), (1.0, 0.3)])
    state = start(task)
    first = next(fit(task, state))
    resumed = start(task)
    resumed.restore(state.snapshot())
    assert [first.epoch, *(result.epoch for result in fit(task, resumed))] == [1, 2, 3]


def test_a_loss_that_is_not_finite_names_epoch_and_step_and_reaches_no_weight(make_task):
    task = make_task(ema_decay=0.9)
    state = start(task)
    before = []

    def poison(state):
        if (state.epoch, state.step) == (1, 1):
            with torch.no_grad():
                state.model.fc.bias[3] = math.nan
            before.append(weights(state))

    for name, buffer in state.model.named_buffers():
        assert buffer.isfinite().all(), name
    with pytest.raises(TrainingError, match=r"^the loss is nan at epoch 2, step 2; lower train\.lr, or lengthen"):
        list(fit(task, state, on_step=poison))
    assert (state.epoch, state.step, len(state.history)) == (1, 1, 1)
    named = dict(state.model.named_parameters())
    assert [name for name, p in named.items() if not p.isfinite().all()] == ["fc.bias"]  # what was put in, no more
    with pytest.raises(TrainingError, match="at epoch 2, step 2"):
        state.snapshot()  # no checkpoint is made of it


def trained(state):
    """Bits of all that a step is there to change: parameters, the optimizer's state, the average with its buffers."""
    tensors = [*state.model.parameters(), *state.average.model.state_dict().values()]
    tensors += [moment for moments in state.optimizer.state.values() for moment in moments.values()]
    return [tensor.detach().clone() for tensor in tensors]


def assert_a_lost_loss_changes_nothing(task, state):
    """The device leaves all steps out from the one whose loss is lost; the end of the epoch says which it was."""
    before = []

    def lose(state):
        if (state.epoch, state.step) == (1, 1):  # from now on no logit is a number, though the weights stay finite
            state.model.fc.register_forward_hook(lambda _module, _inputs, logits: logits * math.nan)
            before.extend(trained(state))

    with pytest.raises(TrainingError, match=r"^the loss is nan at epoch 2, step 2; lower train\.lr, or lengthen"):
        list(fit(task, state, on_step=lose))
    assert (state.epoch, state.step, len(state.history)) == (1, 3, 1)
    assert all(map(torch.equal, before, trained(state)))
    with pytest.raises(TrainingError, match="at epoch 2, step 2"):
        state.snapshot()


def test_where_no_loss_is_waited_for_a_lost_one_changes_nothing(make_task):
    task = make_task(EVERYTHING, ema_decay=0.9)
    state = start(task)
    state.losses.lost = state.optimizer.found_inf = torch.zeros(())  # as on CUDA
    assert_a_lost_loss_changes_nothing(task, state)


def test_a_run_that_explodes_is_stopped(make_task):
    task = make_task(lr=1e30, warmup_epochs=0)
    with pytest.raises(TrainingError, match=r"the loss(?: on val)? is (nan|inf) at epoch 1, step [23]; "):
        list(fit(task, start(task)))


def test_a_val_loss_that_is_not_finite_is_no_result(make_task):
    task = make_task(**STILL)
    state = start(task)

    def poison(state):
        if state.step == 3:
            state.model.bn1.running_mean[0] = math.nan

    with pytest.raises(TrainingError, match=r"^the loss on val is nan at epoch 1, step 3; "):
        list(fit(task, state, on_step=poison))
    assert state.history == []


def test_logits_on_val_that_are_not_finite_are_no_result(make_task, digits):
    """The loss is finite where no image has the label of a class with the logit -inf."""
    task = make_task(**STILL)
    without_0 = digits.val.rows(np.flatnonzero(digits.val.labels))
    task = replace(task, val=Loader(without_0, 256, torch.device("cpu")))
    state = start(task)

    def poison(state):
        if state.step == 3:
            state.model.fc.bias.data[0] = -math.inf

    with pytest.raises(TrainingError, match=r"^the largest logit on val is inf at epoch 1, step 3; "):
        list(fit(task, state, on_step=poison))
    assert state.history == []


def test_bfloat16_trains_and_repeats(make_task):
    task = make_task(precision="bfloat16")
    state = start(task)
    results = list(fit(task, state))
    assert curve(results) == curve(fit(task, start(task)))
    assert all(p.dtype == torch.float32 for p in state.model.parameters())
    assert state.val_logits.dtype == torch.float32
    plain = make_task(precision="float32")
    assert curve(results) != curve(fit(plain, start(plain)))


def test_a_narrow_network_trains_too(make_task):
    """Channels-last, torch aborts on it: see `Device.place`."""
    task = make_task()
    state = start(task, width=4)
    assert len(list(fit(task, state))) == 2


def test_it_learns(make_task):
    task = make_task(epochs=8, batch_size=32, warmup_epochs=1)
    *_, last = fit(task, start(task))
    assert last.val_accuracy > 0.6  # chance is 0.1


# --- on a GPU ---


@pytest.mark.cuda
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="tests what happens on a CUDA device, and this machine has none"
)
@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_cuda_repeats_bit_for_bit_and_goes_on_after_any_step(make_task, tmp_path, variant, precision):
    augment, train = VARIANTS[variant]
    task = make_task(augment, device="cuda", precision=precision, **train)
    assert task.device.autocast == (precision == "auto")
    first, second = start(task), start(task)
    expected = curve(fit(task, first))
    assert curve(fit(task, second)) == expected
    assert weights(second) == weights(first)
    for num_steps in range(1, task.total_steps + 1):
        stopped = start(task)
        list(fit(task, stopped, after(num_steps)))
        save_checkpoint(tmp_path / "last.pt", stopped.snapshot())
        resumed = start(task, seed=num_steps)
        resumed.restore(load_checkpoint(tmp_path / "last.pt", task.device.torch_device))
        list(fit(task, resumed))
        assert curve(resumed.history) == expected
        assert weights(resumed) == weights(first)


@pytest.mark.cuda
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="tests what happens on a CUDA device, and this machine has none"
)
def test_cuda_leaves_a_step_out_whose_loss_is_lost(make_task):
    task = make_task(EVERYTHING, ema_decay=0.9, device="cuda")
    assert_a_lost_loss_changes_nothing(task, start(task))


@pytest.mark.cuda
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="tests what happens on a CUDA device, and this machine has none"
)
def test_cuda_draws_what_the_cpu_draws(make_task):
    """Draws are made on the CPU, so the first step's loss differs by rounding alone."""
    results = []
    for device in ("cpu", "cuda"):
        task = make_task(EVERYTHING, epochs=1, batch_size=256, device=device, precision="float32", **STILL)
        results += fit(task, start(task, dropout=0.0))
    assert results[0].train_loss == pytest.approx(results[1].train_loss, rel=1e-3)
