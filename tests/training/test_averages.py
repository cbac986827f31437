"""The mean of the last epochs' weights: by hand, by torch's own average, and after a stop at any place."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from imgcls.config.train_keys import TrainConfig
from imgcls.errors import Interrupted
from imgcls.training import loop
from imgcls.training.averages import EpochAverage
from imgcls.training.checkpoint import load_checkpoint, save_checkpoint
from imgcls.training.loop import fit, predict
from tests.training.test_loop import EVERYTHING, after, curve, start, weights

AVERAGED = {"epochs": 4, "average_epochs": 2, "batch_size": 75}


def whole_state(state):
    """Every tensor that the scored model has, on the CPU."""
    return {name: tensor.clone() for name, tensor in state.scored_model.state_dict().items()}


def ends_of(task):
    """The model as it is at the end of each epoch, without any average."""
    plain = start(task)
    plain.epoch_average = None
    return [copy.deepcopy(plain.model) for _ in fit(task, plain)]


def test_what_is_scored_is_the_mean_of_the_last_epochs_by_hand(make_task):
    task = make_task(EVERYTHING, **AVERAGED)
    ends = [model.state_dict() for model in ends_of(task)]
    state = start(task)
    for epoch, result in enumerate(fit(task, state), 1):
        last = ends[max(epoch - 2, 0) : epoch]
        assert len(last) == min(epoch, 2)
        scored = state.scored_model.state_dict()
        for name, tensor in scored.items():
            mean = sum(end[name].double() for end in last) / len(last)
            expected = mean.float() if tensor.is_floating_point() else last[-1][name]
            torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7)
        again = predict(state.scored_model, task.val, task.normalise, task.device)
        assert torch.equal(again, state.val_logits)
        assert result.epoch == epoch
    assert not torch.equal(scored["fc.weight"], ends[-1]["fc.weight"])


def test_the_mean_of_all_epochs_is_torchs_averaged_model(make_task):
    task = make_task(epochs=4, average_epochs=4, batch_size=75)
    theirs = AveragedModel(start(task).model, use_buffers=True)
    for model in ends_of(task):
        theirs.update_parameters(model)
    state = start(task)
    list(fit(task, state))
    expected = theirs.module.state_dict()
    for name, tensor in state.scored_model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-7)


def test_the_average_changes_no_bit_of_the_training(make_task):
    with_it, without = (make_task(EVERYTHING, **AVERAGED | {"average_epochs": number}) for number in (3, 1))
    first, second = start(with_it), start(without)
    losses = [[result.train_loss for result in fit(task, of)] for task, of in ((with_it, first), (without, second))]
    assert losses[0] == losses[1]
    assert all(map(torch.equal, first.model.state_dict().values(), second.model.state_dict().values()))


def test_with_a_moving_average_it_is_the_mean_of_that(make_task):
    task = make_task(**AVERAGED, ema_decay=0.8)
    plain, moving = start(task), []
    plain.epoch_average = None
    for _ in fit(task, plain):
        moving.append({name: tensor.clone() for name, tensor in plain.average.model.state_dict().items()})
    state = start(task)
    list(fit(task, state))
    mean = (moving[-1]["fc.weight"] + moving[-2]["fc.weight"]) / 2
    torch.testing.assert_close(state.scored_model.state_dict()["fc.weight"], mean)


@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.9}], ids=["alone", "of the moving average"])
def test_stopping_after_any_step_and_going_on_changes_no_bit(make_task, tmp_path, more):
    task = make_task(EVERYTHING, **AVERAGED | {"epochs": 3}, **more)
    whole = start(task)
    expected = curve(fit(task, whole))
    assert task.total_steps == 6
    for num_steps in range(1, task.total_steps + 1):
        stopped = start(task)
        list(fit(task, stopped, after(num_steps)))
        save_checkpoint(tmp_path / "last.pt", stopped.snapshot())
        resumed = start(task, seed=num_steps)  # other weights, all of which must be replaced
        resumed.restore(load_checkpoint(tmp_path / "last.pt"))
        assert resumed.epoch_average.ends.keys() == stopped.epoch_average.ends.keys()
        list(fit(task, resumed))
        assert curve(resumed.history) == expected
        assert weights(resumed) == weights(whole)
        assert all(map(torch.equal, whole_state(resumed).values(), whole_state(whole).values()))
        assert torch.equal(resumed.val_logits, whole.val_logits)


def test_a_stop_within_validation_counts_no_epoch_twice(make_task, monkeypatch, tmp_path):
    task = make_task(**AVERAGED)
    whole, stopped = start(task), start(task)
    list(fit(task, whole))
    validate, calls = loop.predict_val, []

    def stops_once(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted("within the third validation")
        return validate(*arguments)

    monkeypatch.setattr(loop, "predict_val", stops_once)
    list(fit(task, stopped))
    assert (stopped.epoch, stopped.step, sorted(stopped.epoch_average.ends)) == (2, 2, [2, 3])
    save_checkpoint(tmp_path / "last.pt", stopped.snapshot())
    resumed = start(task, seed=1)
    resumed.restore(load_checkpoint(tmp_path / "last.pt"))
    for state in (stopped, resumed):  # in the same process, and in another
        list(fit(task, state))
        assert sorted(state.epoch_average.ends) == [3, 4]
        assert all(map(torch.equal, whole_state(state).values(), whole_state(whole).values()))


def test_what_is_taken_over_does_not_change_with_the_model():
    model = nn.Linear(2, 2)
    average = EpochAverage(model, 2)
    before = model.weight.detach().clone()
    average.add(model, 1)
    with torch.no_grad():
        model.weight += 2
    average.add(model, 2)
    torch.testing.assert_close(average.model.weight, before + 1)
    assert not average.model.weight.requires_grad


def test_more_epochs_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"is more than train\.epochs = 3; train for longer, or add --set train\.av"):
        TrainConfig(epochs=3, average_epochs=4)
    assert TrainConfig(epochs=3, average_epochs=3, score_epoch=2).average_epochs == 3  # as a confirmation fixes it
