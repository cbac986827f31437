"""imgcls beside a plain script with the same network, weights, image size and epochs, on photographs of clothes.

    python -m benchmarks.plain FOLDER [--seeds 5] [--variant NAME ...]

`benchmarks/plain_script.py` is what a practitioner writes with torch and timm. FOLDER is a clone of
github.com/alexeygrigorev/clothing-dataset-small (CC0; folders `train`, `validation` and `test`). A variant changes the
lines of the script that `VARIANTS` names, and nothing else, so each row of the result says what that change is worth.
imgcls trains with its defaults. Validation chooses the epoch everywhere; each test score is read once, at the end.

Every finished run is kept in benchmarks/PLAIN.json, so the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("plain_script.py")
RESULTS = Path(__file__).with_name("PLAIN.json")

CROP = ("transforms.Resize((side, side))]", "transforms.Resize(side), transforms.CenterCrop(side)]")
ZOOM = ("[*fit, *flip,", "[transforms.RandomResizedCrop(side, (0.5, 1.0)), *flip,")
HEAD = ("optimizer = torch", "network.get_classifier().reset_parameters()\noptimizer = torch")
SCHEDULE = ("epochs * len(batches))", "epochs * len(batches), pct_start=1 / 3, div_factor=200, cycle_momentum=False)")
SMOOTHING = ("CrossEntropyLoss()", "CrossEntropyLoss(label_smoothing=0.05)")
DECAY = (
    "(network.parameters(), lr)",
    '([{"params": [p for p in network.parameters() if p.ndim >= 2], "weight_decay": 0.05}, '
    '{"params": [p for p in network.parameters() if p.ndim < 2], "weight_decay": 0.0}], lr)',
)

VARIANTS: dict[str, tuple[tuple[str, str], ...]] = {
    "script": (),
    "script, centre crop": (CROP,),
    "script, torch's head": (HEAD,),
    "script, warm-up and cosine": (SCHEDULE,),
    "script, label smoothing": (SMOOTHING,),
    "script, weight decay 0.05": (DECAY,),
    "script, random zoom": (ZOOM,),
    "script, lr 3e-4": (("lr = 96, 3, 64, 1e-3", "lr = 96, 3, 64, 3e-4"),),
    "script, lr 3e-3": (("lr = 96, 3, 64, 1e-3", "lr = 96, 3, 64, 3e-3"),),
    "script, all that imgcls does": (CROP, HEAD, SCHEDULE, SMOOTHING, DECAY),
}
"""What is changed in the script: name -> (line as it is, line as it becomes)."""

IMGCLS = "imgcls"
"""Name of the runs of imgcls with its defaults."""


def experiment(folder: Path, seed: int) -> dict[str, Any]:
    """The defaults of imgcls with the script's network, weights, image size and epochs."""
    return {
        "name": "clothes",
        "data": {"source": "folder", "path": str(folder), "image_size": 96},
        "model": {"name": "timm:tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"},
        "train": {"epochs": 3, "seed": seed},
    }


def script_with(changes: tuple[tuple[str, str], ...]) -> str:
    """The script with lines changed.

    Raises:
        ValueError: a line to change is not in the script exactly once.
    """
    source = SCRIPT.read_text(encoding="utf-8")
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{old!r} stands {source.count(old)} times in {SCRIPT.name}; it has to stand there once")
        source = source.replace(old, new)
    return source


def run_script(changes: tuple[tuple[str, str], ...], folder: Path, seed: int) -> tuple[float, float]:
    """Runs the script, changed, in a process of its own.

    Returns:
        Val and test accuracy.
    """
    with tempfile.TemporaryDirectory() as scratch:
        weights, script = Path(scratch, "lite0.pth"), Path(scratch, "script.py")
        _write_weights(weights)
        script.write_text(script_with(changes), encoding="utf-8")
        command = [sys.executable, str(script), str(folder), str(weights), str(seed)]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    val, test = re.findall(r"^val ([\d.]+), test ([\d.]+)$", said, re.MULTILINE)[0]
    return float(val), float(test)


def run_imgcls(folder: Path, seed: int) -> tuple[float, float]:
    """Trains and evaluates with imgcls, in this process, in a store that is thrown away.

    Returns:
        Val and test accuracy.
    """
    import os

    import imgcls

    home = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            run = imgcls.train(experiment(folder, seed))
            test = imgcls.evaluate(run).scores["test/accuracy"]
        finally:
            os.chdir(home)
    return float(run.scores["best/val/accuracy"]), float(test)


def _cpu_seconds() -> float:
    """CPU seconds of this process and of those that it waited for; other work on the machine does not count."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _write_weights(path: Path) -> None:
    """The package's weights under timm's names, as `pretrained=True` would download them."""
    import timm
    import torch

    from imgcls.models.pretrained_weights import find_package, in_order, read_file

    names = list(timm.create_model("tf_efficientnet_lite0").state_dict())
    torch.save(in_order(read_file(find_package("package:efficientnet-lite0").file()), names), path)


def table(results: list[dict[str, Any]]) -> str:
    """Mean and range over the seeds of each variant, as Markdown."""
    rows = ["| | seeds | val, mean | val, range | test, mean | test, range | CPU seconds, median |", "|---" * 7 + "|"]
    return "\n".join([*rows, *_rows(results)])


def _rows(results: list[dict[str, Any]]) -> Iterator[str]:
    for name in (IMGCLS, *VARIANTS):
        runs = [run for run in results if run["variant"] == name]
        if runs:
            val, test = ([run[split] for run in runs] for split in ("val", "test"))
            yield f"| {name} | {len(runs)} | {_spread(val)} | {_spread(test)} | {_seconds(runs)} |"


def _spread(scores: list[float]) -> str:
    return f"{statistics.mean(scores):.3f} | {min(scores):.3f} to {max(scores):.3f}"


def _seconds(runs: list[dict[str, Any]]) -> str:
    known = [run["cpu_seconds"] for run in runs if run["cpu_seconds"] is not None]
    return f"{statistics.median(known):.0f}" if known else "-"


def main() -> None:
    """Runs what is missing, keeps each result, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the photographs, with train, validation and test")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--variant", action="append", choices=[IMGCLS, *VARIANTS], help="all, if left out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else []
    done = {(run["variant"], run["seed"]) for run in results}
    for seed in range(1, arguments.seeds + 1):
        for name in arguments.variant or [IMGCLS, *VARIANTS]:
            if (name, seed) in done:
                continue
            begun, folder = _cpu_seconds(), arguments.folder.resolve()
            val, test = run_imgcls(folder, seed) if name == IMGCLS else run_script(VARIANTS[name], folder, seed)
            seconds = round(_cpu_seconds() - begun)
            scores = {"val": round(val, 4), "test": round(test, 4), "cpu_seconds": seconds}
            results.append({"variant": name, "seed": seed, **scores})
            arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"{name}, seed {seed}: val {val:.3f}, test {test:.3f}, {seconds} CPU seconds", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
