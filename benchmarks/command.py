"""Measures the speed of imgcls: `python -m benchmarks [--quick] [--only PARTS] [--rounds N] [--output FOLDER]`.

Progress goes to stderr, the summary to stdout as one line of JSON. All parts together write `RESULTS.md` and
`RESULTS.json` (the quick form `RESULTS_QUICK`) into this folder; some parts alone write only where `--output` says, and
there each part is written as soon as it is done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.arena import players
from benchmarks.contestant import ALL
from benchmarks.forms import FULL, PARTS, QUICK, TINY, Form
from benchmarks.gpu import measure_gpu
from benchmarks.growth import measure_growth
from benchmarks.machine import describe_machine
from benchmarks.memory import measure_memory
from benchmarks.needs import require, sources_of
from benchmarks.progress import Progress
from benchmarks.report import Results, summary, write_results
from benchmarks.sweep import compare_sweeps
from benchmarks.threads import measure_threads
from benchmarks.throughput import Tell, compare
from benchmarks.tracker import measure_tracker
from benchmarks.verbs import measure_verbs
from benchmarks.works import make_work
from imgcls.terminal import guard_streams

EXPECTED = {
    "full": {"works": 900, "sweep": 520, "threads": 900, "tracker": 170, "verbs": 120, "memory": 400, "growth": 300},
    "quick": {"works": 430, "sweep": 195, "threads": 220, "tracker": 55, "verbs": 65, "memory": 0, "growth": 0},
    "tiny": {"works": 60, "sweep": 40, "threads": 150, "tracker": 20, "verbs": 20, "memory": 20, "growth": 40},
}
"""Seconds of each part as first planned; they only weigh the time left, which the run itself corrects."""


def main() -> None:
    """Measures, writes, and prints the summary."""
    guard_streams()
    arguments = _arguments()
    form = {"quick": QUICK, "tiny": TINY}.get(arguments.form, FULL)
    if arguments.rounds:
        form = replace(form, rounds=arguments.rounds, threads_rounds=arguments.rounds)
    if arguments.works:
        form = replace(form, works=tuple(arguments.works.split(",")))
    parts = arguments.only.split(",") if arguments.only else list(PARTS)
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if unknown := set(form.works) - set(FULL.works):
        sys.exit(f"no work {', '.join(sorted(unknown))}; there are {', '.join(FULL.works)}")
    require(sources_of(form, parts))
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # every part has a store of its own
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    begun = time.monotonic()
    results: Results = {"form": form.name, "command": _command(form, arguments.only), "machine": describe_machine()}
    name = "RESULTS" if form.name == "full" else f"RESULTS_{form.name.upper()}"
    whole = set(parts) == set(PARTS) and form.name != "tiny"
    with tempfile.TemporaryDirectory(prefix="imgcls-benchmarks-") as folder, _kept_where_it_fails(results, name):
        for found in measure(form, parts, Path(folder)):
            results |= found
            results["seconds"] = time.monotonic() - begun
            results["summary"] = summary(results)
            if arguments.output:
                write_results(results, Path(arguments.output), name)
    if whole and not arguments.output:
        write_results(results, Path(__file__).parent, name)
    print(json.dumps(results["summary"]))


@contextmanager
def _kept_where_it_fails(results: Results, name: str) -> Iterator[None]:
    """Writes the parts that were measured before an error or Ctrl-C into a folder that stays, and names it."""
    try:
        yield
    except BaseException:
        if "summary" in results:
            folder = tempfile.mkdtemp(prefix="imgcls-benchmarks-results-")
            write_results(results, Path(folder), name)
            sys.stderr.write(f"what was measured before is in {folder}\n")
        raise


def measure(form: Form, parts: list[str], into: Path) -> Iterator[Results]:
    """Runs the parts in their order, and gives what each found; whatever they write is below `into`."""
    measures: dict[str, Callable[[Form, Path, Tell], Any]] = {
        "works": _measure_works,
        "sweep": compare_sweeps,
        "threads": measure_threads,
        "tracker": measure_tracker,
        "verbs": measure_verbs,
        "memory": measure_memory,
        "growth": measure_growth,
    }
    left_out = {part for part, size in (("memory", form.memory_images), ("growth", form.growth_images)) if not size}
    chosen = [part for part in PARTS if part in parts and part not in left_out]
    progress = Progress({part: EXPECTED[form.name][part] for part in chosen})
    for part in chosen:
        progress.begin(part)
        os.environ["IMGCLS_CACHE"] = str(into / "cache")
        yield {part: measures[part](form, into / part, progress.at)}
        if part == "works" and torch.cuda.is_available():
            yield {"gpu": measure_gpu(form, into / "gpu", progress.at)}
    progress.end()


def _measure_works(form: Form, into: Path, tell: Tell) -> Results:
    found = {}
    with players(ALL) as contestants:
        for number, name in enumerate(form.works):
            tell(number / len(form.works), f"{name}: writing its images")
            work = make_work(name, form, into)

            def tell_work(share: float, what: str, number: int = number, name: str = name) -> None:
                tell((number + share) / len(form.works), f"{name}: {what}")

            found[name] = compare(work, form, tell_work, contestants)
    return found


def _command(form: Form, only: str) -> str:
    options = ([] if form.name == "full" else [f"--{form.name}"]) + ([f"--only {only}"] if only else [])
    return " ".join(["python -m benchmarks", *options])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n\n")[0])
    parser.set_defaults(form="full")
    parser.add_argument("--quick", dest="form", action="store_const", const="quick", help="under 20 minutes on 2 cores")
    parser.add_argument("--tiny", dest="form", action="store_const", const="tiny", help="tries the benchmark itself")
    parser.add_argument("--only", default="", metavar="PARTS", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--works", default="", metavar="NAMES", help="some of the four works")
    parser.add_argument(
        "--rounds", type=int, default=0, metavar="N", help="measures of ours and of the limit, and of threads"
    )
    parser.add_argument("--output", default="", metavar="FOLDER", help="where the results go")
    return parser.parse_args()
