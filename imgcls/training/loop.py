"""The training loop: a generator that yields one result per epoch and knows no tracker.

`fit` may be left after any step and entered again with the same state: every draw is a function of (seed, epoch,
step), and the sums of the unfinished epoch are part of the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imgcls.config.key_types import TestViews
from imgcls.config.train_keys import TrainConfig
from imgcls.data.augment import Augment, Normalise
from imgcls.data.loader import Batch, Loader
from imgcls.data.part import Part
from imgcls.errors import Interrupted
from imgcls.metrics import val_scores
from imgcls.models.parts import NetworkParts
from imgcls.models.views import with_views
from imgcls.rng import derive_seed, generator
from imgcls.statistics.predictions import Predictions
from imgcls.training.averages import EpochAverage, WeightAverage
from imgcls.training.device import Device
from imgcls.training.epoch import EpochResult
from imgcls.training.freezing import set_frozen
from imgcls.training.loss import Loss, LossSum, finite
from imgcls.training.optimizer import make_optimizer, set_lr
from imgcls.training.parallel import ALONE, Ranks
from imgcls.training.schedule import lr_at
from imgcls.training.sync_batch_norm import check_norms, norms_of_whole_batch


@dataclass(frozen=True)
class Task:
    """A task of the training loop: what stays the same from the first step to the last.

    Attributes:
        config: the `[train]` table.
        metric: `search.metric`, which selects the best epoch.
        train: batches of train.
        val: batches of val.
        augment: train images -> views.
        normalise: views -> what the model sees.
        num_classes: K.
        loss: what a step descends, on the device.
        device: where to compute.
        test_views: `data.test_views`, over which the answers on val are meant.
    """

    config: TrainConfig
    metric: str
    train: Loader
    val: Loader
    augment: Augment
    normalise: Normalise
    num_classes: int
    loss: Loss
    device: Device
    test_views: TestViews = "one"

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.epochs * self.train.steps_per_epoch

    def lr(self, epoch: int, step: int) -> float:
        """Learning rate of the head in a step, both counted from 0."""
        return lr_at(
            epoch * self.train.steps_per_epoch + step,
            peak=self.config.lr,
            warmup_steps=self.config.warmup_epochs * self.train.steps_per_epoch,
            total_steps=self.total_steps,
        )

    def batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        """Batches of train in an epoch, from a step on, both counted from 0; of each the part of this process."""
        seed, is_shared = self.config.seed, self.device.ranks.size > 1
        return self.train.shuffled(seed, epoch, start_step, partial(self._part, epoch) if is_shared else None)

    def _part(self, epoch: int, step: int, num_images: int) -> Part:
        draw = partial(generator, self.config.seed, epoch, step)
        places = self.device.ranks.part_of(num_images)
        return Part.of(num_images, places, self.augment.partner(num_images, draw))

    def augmented(self, batch: Batch, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """What the model is trained on in a step, epoch and step counted from 0.

        Returns:
            float32 (B, C, S, S), normalised; targets float32 (B, K), or the labels int64 (B,) where nothing is mixed.
            Of a batch that several processes share, they are those of this process.
        """
        draw = partial(generator, self.config.seed, epoch, step)
        views = self.augment.views(batch.images, self.normalise, draw, batch.part)
        return self.augment.mixed(views, batch.labels, self.num_classes, draw, batch.part)


@dataclass
class TrainState:
    """State of the training loop: all that the next step depends on.

    Attributes:
        model: what is trained.
        optimizer: over its parameters.
        average: the moving average of the weights, where `ema_decay` asks for one.
        epoch_average: the mean of the last epochs' weights, where `average_epochs` asks for one; of the moving average,
            where there is that too.
        epoch: completed epochs.
        step: completed steps of the epoch under way.
        parts: of the model; None where no key of `[train]` tells them apart.
        losses: their losses.
        num_images: images of those steps.
        seconds: wall time spent on those steps.
        history: results of the completed epochs.
        val_logits: float32 (N, K) on the CPU, of the last completed epoch; not part of a snapshot.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    epoch_average: EpochAverage | None
    losses: LossSum
    parts: NetworkParts | None = None
    epoch: int = 0
    step: int = 0
    num_images: int = 0
    seconds: float = 0.0
    history: list[EpochResult] = field(default_factory=list)
    val_logits: Tensor | None = None

    @classmethod
    def start(
        cls, model: nn.Module, config: TrainConfig, device: Device, parts: NetworkParts | None = None
    ) -> TrainState:
        """State before the first step; `parts` of the model are needed where a key of `[train]` tells them apart."""
        model = device.place(model)
        if device.ranks.size > 1:
            check_norms(model)
        average = WeightAverage(model, config.ema_decay) if config.ema_decay else None
        epoch_average = EpochAverage(model, config.average_epochs) if config.average_epochs > 1 else None
        losses = LossSum(device.torch_device)
        return cls(model, make_optimizer(model, config, losses.lost, parts), average, epoch_average, losses, parts)

    @property
    def scored_model(self) -> nn.Module:
        """Model that validation scores and the best checkpoint keeps: an average, where there is one."""
        return self._latest_model if self.epoch_average is None else self.epoch_average.model

    @property
    def _latest_model(self) -> nn.Module:
        """The model after its last step, or the moving average after it."""
        return self.model if self.average is None else self.average.model

    def average_epochs(self) -> None:
        """Takes the weights at the end of the epoch under way into the mean of the last epochs, if there is one.

        Doing it twice changes nothing: a stop during validation leaves a state from which validation begins again.
        """
        if self.epoch_average is not None:
            self.epoch_average.add(self._latest_model, self.epoch + 1)

    @property
    def loss_sum(self) -> float:
        """Loss in nats times images, over the steps of the epoch under way; asking waits for the device.

        Raises:
            TrainingError: the loss of a step was not finite.
        """
        return self.losses.value(self.epoch)

    def best(self, metric: str) -> EpochResult:
        """The best completed epoch."""
        return min(self.history, key=lambda result: result.rank(metric))

    def kept(self, config: TrainConfig, metric: str) -> EpochResult:
        """The epoch whose weights count so far: the latest on the way to one fixed beforehand, else the best."""
        return self.history[-1] if config.score_epoch else self.best(metric)

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values from which `restore` makes this state again.

        The tensors are those in use: they are to be written before the next step changes them.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "epoch_average": None if self.epoch_average is None else self.epoch_average.ends,
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "num_images": self.num_images,
            "seconds": self.seconds,
            "history": [asdict(result) for result in self.history],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes over a snapshot of this state, its tensors included."""
        self.model.load_state_dict(snapshot["model"])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        if self.average is not None:
            self.average.model.load_state_dict(snapshot["average"])
        if self.epoch_average is not None:
            self.epoch_average.restore(snapshot["epoch_average"])
        for name in ("epoch", "step", "num_images", "seconds"):
            setattr(self, name, snapshot[name])
        self.losses.start(snapshot["loss_sum"], self.step)
        self.history = [EpochResult.restored(result) for result in snapshot["history"]]


def fit(
    task: Task,
    state: TrainState,
    should_stop: Callable[[], str | bool] = lambda: False,
    on_step: Callable[[TrainState], None] = lambda _: None,
) -> Iterator[EpochResult]:
    """The training loop, from where `state` stands to the last epoch, the fixed one, or the one at which patience ends.

    Args:
        task: what stays the same.
        state: changed in place; between two yields and after a stop it is whole.
        should_stop: asked after each step and between two batches of val; True ends the generator there. Where several
            processes train together, one of them is enough to end it in all.
        on_step: told after each step, for progress bars.

    Yields:
        The result of each epoch as it is completed.

    Raises:
        TrainingError: a loss of train or val that is not finite, naming epoch and step.
    """
    while not is_over(task, state):
        _enter_epoch(task, state)
        since = time.perf_counter()
        for batch in task.batches(state.epoch, state.step):
            _train_step(task, state, batch)
            now = time.perf_counter()
            state.seconds += now - since
            since = now
            on_step(state)
            if task.device.ranks.any(should_stop()):
                return
        try:
            result = _complete_epoch(task, state, should_stop)
        except Interrupted:  # all steps of the epoch are done; whoever goes on begins with its validation
            return
        yield result


def is_over(task: Task, state: TrainState) -> bool:
    """Whether the training loop has done its last epoch, or its patience is at an end."""
    return state.epoch >= task.config.last_epoch or _out_of_patience(task, state)


def predict(
    model: nn.Module, loader: Loader, normalise: Normalise, device: Device,
    should_stop: Callable[[], str | bool] = lambda: False, ranks: Ranks = ALONE,
) -> Tensor:  # fmt: skip
    """The loop's forward pass over a split: logits, float32 (N, K) on the CPU, of every image in order.

    Several processes take the batches in turns, and each of them gets all logits. So every image is predicted once, in
    the batch in which one process would predict it.

    Raises:
        Interrupted: `should_stop`, asked between two batches, said so.
    """
    model.eval()
    outputs: list[Tensor] = []
    num_asked = loader.num_batches // ranks.size  # times that every process has a batch
    with torch.inference_mode(), device.forward_context():
        for batch in loader.in_order(ranks.rank, ranks.size):
            if 0 < len(outputs) < num_asked and ranks.any(should_stop()):
                raise Interrupted("stopped between two batches")
            outputs.append(model(normalise(batch.images)).float())
    return torch.cat(ranks.interleaved(outputs)).cpu()


def predict_val(
    task: Task, model: nn.Module, should_stop: Callable[[], str | bool] = lambda: False, ranks: Ranks = ALONE
) -> Tensor:
    """The loop's forward pass over val, with the task's views of each image; see `predict`."""
    return predict(with_views(model, task.test_views), task.val, task.normalise, task.device, should_stop, ranks)


def _enter_epoch(task: Task, state: TrainState) -> None:
    state.model.train()
    if task.config.freeze_epochs:
        assert state.parts is not None
        set_frozen(state.model, state.parts, state.epoch < task.config.freeze_epochs)


def _train_step(task: Task, state: TrainState, batch: Batch) -> None:
    config, where, ranks = task.config, (state.epoch, state.step), task.device.ranks
    images, targets = task.augmented(batch, *where)
    set_lr(state.optimizer, task.lr(*where))
    # Dropout and its kin draw from here: each process draws for images of its own.
    task.device.seed(derive_seed(config.seed, *where, "forward", *([ranks.rank] if ranks.rank else [])))
    with task.device.forward_context(), norms_of_whole_batch(ranks):
        logits = state.model(images)
        loss = task.loss.sum(logits, targets)
    state.losses.add(ranks.total(loss), state.epoch)
    state.optimizer.zero_grad(set_to_none=True)
    (loss / batch.num_images).backward()  # type: ignore[no-untyped-call]
    ranks.add_gradients(state.model)
    state.optimizer.step()
    if state.average is not None:
        state.average.update(state.model, where[0] * task.train.steps_per_epoch + where[1], state.losses.lost)
    state.num_images += batch.num_images
    state.step += 1


def _complete_epoch(task: Task, state: TrainState, should_stop: Callable[[], str | bool]) -> EpochResult:
    train_loss = state.loss_sum / state.num_images
    since = time.perf_counter()
    state.average_epochs()
    state.val_logits = predict_val(task, state.scored_model, should_stop, task.device.ranks)
    scores = val_scores(Predictions(state.val_logits.numpy(), task.val.labels.numpy()), task.metric)
    result = EpochResult(
        epoch=state.epoch + 1,
        train_loss=train_loss,
        val={
            name: finite(value, f"the {name.removeprefix('val/')} on val", state.epoch + 1, state.step)
            for name, value in scores.items()
        },
        lr=task.lr(state.epoch, state.step - 1),
        seconds=state.seconds + time.perf_counter() - since,
        images_per_second=state.num_images / state.seconds,
        ended=int(time.time() * 1000),
    )
    # A class with the logit -inf leaves the loss finite, and no temperature can be fitted.
    finite(float(state.val_logits.abs().max()), "the largest logit on val", state.epoch + 1, state.step)
    result = task.device.ranks.from_first(result)  # with its times
    state.history.append(result)
    state.epoch, state.step = state.epoch + 1, 0
    state.losses.start()
    state.num_images, state.seconds = 0, 0.0
    return result


def _out_of_patience(task: Task, state: TrainState) -> bool:
    if not task.config.patience or not state.history:
        return False
    return state.epoch - state.best(task.metric).epoch >= task.config.patience
