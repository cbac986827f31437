"""Fine-tuning through the loop: a script of plain torch is the oracle, and bits show what stood still."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imgcls.data.augment import AugmentConfig
from imgcls.models.parts import NetworkParts, blocks_in_order
from imgcls.models.resnet import resnet
from imgcls.training.checkpoint import load_checkpoint, save_checkpoint
from imgcls.training.freezing import set_frozen
from imgcls.training.loop import TrainState, fit
from tests.training.test_loop import EVERYTHING, PLAIN, after, curve, task_of, weights

BLOCKS = {"conv1": 4, "bn1": 4, "layer1": 3, "layer2": 2, "layer3": 1}
"""How far the parts of a ResNet-8 are away from its head."""


def start(task, seed=0, dropout=0.1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = resnet(depth=8, width=16, stem="small", num_classes=10, channels=1, dropout=dropout)
    parts = NetworkParts.of_blocks(model, ["fc"], blocks_in_order(model, ["fc"]))
    return TrainState.start(model, task.config, task.device, parts)


def backbone(model):
    """Every parameter and every statistic before the head."""
    return {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("fc.")}


def same(one, other):
    return {name for name in one if torch.equal(one[name], other[name])}


@pytest.mark.parametrize("train", [{}, {"optimizer": "sgd", "layer_decay": 0.7}], ids=["adamw", "sgd"])
def test_a_frozen_backbone_keeps_its_bits_and_then_thaws(digits, train):
    task = task_of(digits, EVERYTHING, epochs=3, freeze_epochs=2, ema_decay=0.9, **train)
    state = start(task)
    before, head = backbone(state.model), state.model.fc.weight.clone()
    epochs = fit(task, state)
    next(epochs)
    next(epochs)
    assert same(before, backbone(state.model)) == same(before, backbone(state.average.model)) == before.keys()
    assert not torch.equal(head, state.model.fc.weight)
    next(epochs)
    moved = before.keys() - same(before, backbone(state.model))
    assert {"conv1.weight", "bn1.bias", "bn1.running_mean", "layer1.0.conv2.weight", "layer3.0.conv1.weight"} <= moved
    assert int(state.model.bn1.num_batches_tracked) == 3
    assert all(parameter.requires_grad for parameter in state.model.parameters())


@pytest.mark.parametrize("train", [
    {"optimizer": "adamw", "ema_decay": 0.9}, {"optimizer": "sgd", "layer_decay": 0.5, "backbone_lr_scale": 0.3},
], ids=["adamw", "sgd"])  # fmt: skip
def test_stopping_before_at_and_after_the_thaw_changes_no_bit(digits, tmp_path, train):
    """Three steps an epoch, of which the first three are frozen."""
    task = task_of(digits, EVERYTHING, epochs=2, freeze_epochs=1, **train)
    whole = start(task)
    expected = curve(fit(task, whole))
    for num_steps in range(1, task.total_steps + 1):
        stopped = start(task)
        before = list(fit(task, stopped, after(num_steps)))
        save_checkpoint(tmp_path / "last.pt", stopped.snapshot())
        resumed = start(task, seed=num_steps)
        resumed.restore(load_checkpoint(tmp_path / "last.pt"))
        assert curve([*before, *fit(task, resumed)]) == expected
        assert weights(resumed) == weights(whole)


def lr_by_hand(step, peak, warmup, total):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def without_last(model, number):
    """The same layers, but for so many at the end."""
    return nn.Sequential(*list(model)[:-number])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_loop_is_a_plain_script_with_a_rate_for_each_layer(digits, optimizer):
    """Written with torch alone: one group a parameter, nothing frozen by hand but through no_grad and eval()."""
    options = {"optimizer": optimizer, "lr": 0.02, "weight_decay": 0.01, "label_smoothing": 0.0, "layer_decay": 0.6}
    options |= {"backbone_lr_scale": 0.5, "freeze_epochs": 1, "epochs": 3, "warmup_epochs": 1}
    task = task_of(digits, PLAIN, **options)
    state, script = start(task, dropout=0.0), start(task, dropout=0.0).model
    list(fit(task, state))

    shares, groups = {}, []
    for name, parameter in script.named_parameters():
        layer = name.split(".")[0]
        shares[name] = 1.0 if layer == "fc" else 0.5 * 0.6 ** BLOCKS[layer]
        groups.append({"params": [parameter], "name": name, "weight_decay": 0.01 if parameter.ndim > 1 else 0.0})
    if optimizer == "sgd":
        plain = torch.optim.SGD(groups, 0.02, momentum=0.9, nesterov=True, foreach=False)
    else:
        plain = torch.optim.AdamW(groups, 0.02, foreach=False)
    done = 0
    for epoch in range(3):
        for batch in task.train.shuffled(task.config.seed, epoch):
            for group in plain.param_groups:
                group["lr"] = lr_by_hand(done, 0.02, 3, 9) * shares[group["name"]]
            images = task.normalise(batch.images.float())
            plain.zero_grad()
            if epoch == 0:
                with torch.no_grad():
                    features = without_last(script.eval(), 1)(images)
                logits = script.fc(features)
            else:
                logits = script.train()(images)
            F.cross_entropy(logits, batch.labels).backward()
            plain.step()
            done += 1
    for (name, mine), theirs in zip(state.model.state_dict().items(), script.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=2e-4, msg=name)


def test_dropout_stays_on_while_the_backbone_is_frozen(digits):
    """It is that of the training to come; and the statistics of a norm are used, not those of the batch."""
    state = start(task_of(digits, AugmentConfig(), freeze_epochs=1), dropout=0.5)
    model, images = state.model, torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    model.train()
    set_frozen(model, state.parts, is_frozen=True)
    assert not torch.equal(model(images), model(images))
    assert not without_last(model, 1)(images).requires_grad
    before_dropout = without_last(model, 2)
    torch.testing.assert_close(before_dropout(images)[:4], before_dropout(images[:4]))
    assert model.dropout.training and model.fc.training and not model.bn1.training
