"""Part c: the same sweep as ours, and as an ordinary Optuna objective around the usual loop with MLflow logging.

Both have the same images, net, epochs, schedule, pruner and starting weights, and both begin with the experiment's own
values; the usual one draws each trial's values with the very sampler, seeded alike, that ours draws them with. Each
runs in a process of its own, imported beforehand, on an empty store that exists already, from an empty image cache.
What ours does beyond the usual counts: every checkpoint, val prediction, picture, the report and Optuna's plots.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.arena import in_fresh_process
from benchmarks.forms import Form
from benchmarks.throughput import Tell
from benchmarks.usual import train_loader, train_one_epoch, val_loader
from benchmarks.works import Work, make_solar_cells
from imgcls.training.schedule import lr_at

NUM_WORKERS = 2


@dataclass(frozen=True)
class Outcome:
    """What a sweep took and found.

    Attributes:
        seconds: wall time, from the opening of the data to the last line of the record.
        best: val accuracy of its best trial.
        standard_error: of that accuracy, from the number of val images alone.
        epochs: that its trials trained, pruned ones included.
        epochs_by_depth: the same, by the net's depth: the deeper one costs more.
        trials: how many.
        pruned: of them.
    """

    seconds: float
    best: float
    standard_error: float
    epochs: int
    epochs_by_depth: dict[str, int]
    trials: int
    pruned: int


def compare_sweeps(form: Form, into: Path, tell: Tell) -> dict[str, Any]:
    """Runs both, `form.sweep_rounds` times."""
    work = _sweep_work(form, into)
    rounds: list[dict[str, Outcome]] = []
    for number in range(form.sweep_rounds):
        one = {}
        for turn, (name, run) in enumerate((("ours", run_ours), ("usual", run_usual))):
            tell((2 * number + turn) / (2 * form.sweep_rounds), f"{name}, sweep {number + 1} of {form.sweep_rounds}")
            root = into / f"{name} {number}"
            root.mkdir()
            one[name] = in_fresh_process(run, replace(work, root=root))
        rounds.append(one)
    search = work.experiment.search
    return {
        "what": f"{search.trials} trials of at most {work.experiment.train.epochs} epochs; {work.describe()}",
        "rounds": [{name: asdict(outcome) for name, outcome in one.items()} for one in rounds],
        "sweep_vs_usual": median(one["usual"].seconds / one["ours"].seconds for one in rounds),
        "per_epoch_vs_usual": median(
            one["usual"].seconds / one["usual"].epochs / (one["ours"].seconds / one["ours"].epochs) for one in rounds
        ),
    }


def _sweep_work(form: Form, into: Path) -> Work:
    work = make_solar_cells(form.sweep_images, into)
    changes: dict[str, Any] = {"search.trials": form.sweep_trials, "train.epochs": form.sweep_epochs}
    if form.sweep_epochs <= 4:  # the pruner judges only after the longest warm-up
        changes["search.space.train.warmup_epochs"] = {"low": 0, "high": 1}
    return replace(work, experiment=work.experiment.replace(changes))


# --- ours ---


def run_ours(work: Work) -> Outcome:
    """`imgcls sweep`, without the command line."""
    from imgcls.search.sweep import Sweep
    from imgcls.tracking.store import Tracker

    os.environ["IMGCLS_CACHE"] = str(work.root / "cache")
    tracker = Tracker(work.root)
    begun = time.perf_counter()
    result = Sweep(work.experiment, tracker).run()
    seconds = time.perf_counter() - begun
    board = result.leaderboard
    epochs_by_depth: dict[str, int] = {}
    for run_id in map(str, board["run_id"]):
        depth = tracker.get(run_id).params["model.depth"]
        epochs_by_depth[depth] = epochs_by_depth.get(depth, 0) + len(tracker.history(run_id, "val/loss"))
    num_pruned = int((board["outcome"] == "pruned").sum())
    return _outcome(seconds, result.best_value, result.num_val, epochs_by_depth, len(board), num_pruned)


def _outcome(
    seconds: float, best: float, num_val: int, epochs_by_depth: dict[str, int], trials: int, pruned: int
) -> Outcome:
    error = math.sqrt(best * (1 - best) / num_val)
    return Outcome(seconds, best, error, sum(epochs_by_depth.values()), epochs_by_depth, trials, pruned)


# --- the usual way ---


def run_usual(work: Work) -> Outcome:
    """An objective, `study.optimize`, and MLflow's fluent calls."""
    import mlflow
    import optuna

    from imgcls.search.pruners import make_pruner
    from imgcls.search.samplers import make_sampler
    from imgcls.search.space import own_values
    from imgcls.tracking.store import Tracker

    experiment = work.experiment
    Tracker(work.root)  # makes an empty store, as ours has one
    mlflow.set_tracking_uri(f"sqlite:///{work.root / 'mlflow.db'}")
    objective = _Objective(work)
    begun = time.perf_counter()
    mlflow.set_experiment("usual")
    warmup = 1 + int(max(experiment.search.space["train.warmup_epochs"].high, 0))  # type: ignore[union-attr]
    study = optuna.create_study(
        storage=f"sqlite:///{work.root / 'optuna.db'}", direction="maximize", pruner=make_pruner(experiment, warmup)
    )
    study.enqueue_trial(own_values(experiment, experiment.search.space))
    with mlflow.start_run(run_name="sweep"):
        for number in range(experiment.search.trials):
            study.sampler = make_sampler(experiment, number)
            study.optimize(objective, n_trials=1)
        mlflow.log_metric("best_val_accuracy", study.best_value)
        mlflow.log_params({f"best_{key}": value for key, value in study.best_params.items()})
    seconds = time.perf_counter() - begun
    num_pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    return _outcome(
        seconds, study.best_value, objective.num_val, objective.epochs_by_depth, len(study.trials), num_pruned
    )


class _Objective:
    """The objective that tutorials write: loaders, net, loop, a metric an epoch, the best weights as an artifact."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.num_val = 0
        self.epochs_by_depth: dict[str, int] = {}

    def __call__(self, trial: Any) -> float:
        import mlflow

        from imgcls.search.space import suggest

        values = suggest(trial, self._work.experiment.search.space)
        work = replace(self._work, experiment=self._work.experiment.replace(values))
        with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
            mlflow.log_params(values | {"batch_size": work.experiment.train.batch_size})
            return self._train(work, trial)

    def _train(self, work: Work, trial: Any) -> float:
        import mlflow
        import optuna

        config = work.experiment.train
        train, val = train_loader(work, NUM_WORKERS), val_loader(work, NUM_WORKERS)
        net, criterion = work.net(), nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        steps = len(train)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: lr_at(
                min(step, config.epochs * steps - 1),
                peak=1.0,
                warmup_steps=config.warmup_epochs * steps,
                total_steps=config.epochs * steps,
            ),
        )
        best = 0.0
        for epoch in range(1, config.epochs + 1):
            _, train_loss = train_one_epoch(net, train, criterion, optimizer, scheduler)
            val_loss, accuracy = self._validate(net, val)
            depth = str(work.experiment.model.depth)
            self.epochs_by_depth[depth] = self.epochs_by_depth.get(depth, 0) + 1
            mlflow.log_metric("train_loss", train_loss, step=epoch)
            mlflow.log_metric("val_loss", val_loss, step=epoch)
            mlflow.log_metric("val_accuracy", accuracy, step=epoch)
            if accuracy > best or epoch == 1:
                best = accuracy
                self._keep(net)
            trial.report(accuracy, epoch)
            if epoch < config.epochs and trial.should_prune():
                raise optuna.TrialPruned
        return best

    def _validate(self, net: nn.Module, loader: Any) -> tuple[float, float]:
        net.eval()
        loss_sum, correct, images = 0.0, 0, 0
        with torch.no_grad():
            for inputs, labels in loader:
                logits = net(inputs)
                loss_sum += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
                correct += int((logits.argmax(dim=1) == labels).sum())
                images += len(labels)
        self.num_val = images
        return loss_sum / images, correct / images

    @staticmethod
    def _keep(net: nn.Module) -> None:
        import mlflow

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "best.pt")
            torch.save(net.state_dict(), path)
            mlflow.log_artifact(str(path))
