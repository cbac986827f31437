"""Replays searches on recorded trainings, and says which finds more in the same time.

    python -m benchmarks.replay [--quick] [--repeats 200] [--tables digits,solar] [--json]

Each method is replayed with as many seeds as `--repeats` says. The seed chooses the recorded seed that the search sees,
and the configuration that is given to it as its first trial. The whole form writes benchmarks/replay/RESULTS.json and
docs/replay.png, prints the table of docs/searching.md, and goes on where it was stopped. `--quick` replays what imgcls
does by default, plain Optuna and random search, 50 times each, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna

from benchmarks.replay.curves import Curves, ratio
from benchmarks.replay.methods import DEFAULT, METHODS, OPTUNA, RANDOM, SLOW
from benchmarks.replay.page import markdown, regret_after
from benchmarks.replay.plot import draw
from benchmarks.replay.search import TRIALS_OF_REFERENCE, Found, Replay
from benchmarks.replay.tables import TABLES
from benchmarks.replay.world import world

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.json"
PICTURE = FOLDER.parents[1] / "docs" / "replay.png"

TRAININGS, POINTS = 20, 400
"""Seconds of so many whole trainings are replayed, and read at so many points."""

REPEATS, QUICK_REPEATS, SLOW_REPEATS = 200, 50, 50

FEWEST_SEEDS = 2
"""A search sees one seed, and its regret is that of the others."""

Results = dict[str, Any]


def main() -> None:
    """Replays, and prints what was found."""
    arguments = _arguments()
    found: Results = {}
    for table in arguments.tables:
        if (num := world(table).num_seeds) < FEWEST_SEEDS:
            _say(f"{table}: {num} of its seeds are recorded whole, and a regret needs {FEWEST_SEEDS}; left out")
            continue
        found[table] = {}
        reference = None
        for method in [OPTUNA, RANDOM, DEFAULT] if arguments.quick else METHODS:
            repeats = min(arguments.repeats, SLOW_REPEATS) if method in SLOW else arguments.repeats
            kept = None if arguments.quick else _kept(table, method, repeats)
            if kept is None:
                reference = reference or curves(table, OPTUNA, arguments.repeats)
                kept = _measured(table, method, repeats, reference)
            found[table][method] = kept
            _say(f"{table:8} {method:36} {_in_words(kept)}")
            if not arguments.quick:
                _keep(found)
    if not arguments.quick:
        draw(found, [OPTUNA, RANDOM, DEFAULT], PICTURE)
        print(markdown(found))
    if arguments.json:
        ratios = {table: here[DEFAULT]["ratio"] for table, here in found.items()}
        sys.stdout.write(json.dumps({"seconds_to_regret_vs_optuna": ratios}) + "\n")


class Task(NamedTuple):
    """One search that is to be replayed."""

    table: str
    method: str
    seed: int


def replayed(task: Task) -> tuple[list[Found], float]:
    """What a search would hand over after each of its steps, and the regret of the configuration that it was given."""
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    here, draws = world(task.table), np.random.default_rng(task.seed)
    replay = Replay(here, int(draws.integers(here.num_seeds)), int(draws.integers(len(here.values))))
    steps: list[Found] = []
    for found in METHODS[task.method](replay, task.seed):
        steps.append(found)
        if found.seconds > here.training_seconds * TRAININGS and found.trials >= TRIALS_OF_REFERENCE:
            break
    return steps, here.regret(replay.first, replay.seen)


def curves(table: str, method: str, repeats: int) -> Curves:
    """The curves of a method in a world, replayed in as many processes as there are cores."""
    tasks = [Task(table, method, seed) for seed in range(repeats)]
    with multiprocessing.Pool(os.cpu_count()) as pool:
        steps, first = zip(*pool.imap(replayed, tasks, chunksize=2), strict=True)
    seconds = np.linspace(0.0, world(table).training_seconds * TRAININGS, POINTS + 1)
    return Curves.of(steps, seconds, first)


def _measured(table: str, method: str, repeats: int, reference: Curves) -> Results:
    began = time.monotonic()
    each = reference if method == OPTUNA else curves(table, method, repeats)
    against = ratio(each, reference.first(repeats))
    return {
        "of": _version(table, method, repeats),
        "ratio": _finite(against.value, 3),
        "interval": [_finite(against.low, 3), _finite(against.high, 3)],
        "training_seconds": round(world(table).training_seconds, 2),
        "regret_after_20_trials": round(float(each.reference.mean()), 5),
        "seconds": [round(float(value), 1) for value in each.seconds],
        "regret": [round(float(value), 5) for value in each.mean],
        "error": [round(float(value), 5) for value in each.error],
        "replay_took": round(time.monotonic() - began),
    }


def _version(table: str, method: str, repeats: int) -> str:
    """What a result is of: kept results of other methods or other tables are made again."""
    here = world(table)
    return f"{METHODS[method]!r}, {len(here.values)} configurations, {here.num_seeds} seeds, {repeats} searches"


def _finite(value: float, digits: int) -> float | None:
    """A figure for JSON, which has no infinity."""
    return round(value, digits) if np.isfinite(value) else None


def _in_words(of: Results) -> str:
    low, high = of["interval"]
    after = " ".join(f"{100 * regret_after(of, trainings):.2f}" for trainings in (2, 5, 10, 15))
    return f"ratio {of['ratio']} ({low} to {high}); regret after 2, 5, 10, 15 trainings {after}; {of['replay_took']} s"


# --- what is kept -----------------------------------------------------------------------------------------------------


def _kept(table: str, method: str, repeats: int) -> Results | None:
    recorded = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found: Results | None = recorded.get("tables", {}).get(table, {}).get(method)
    return found if found is not None and found["of"] == _version(table, method, repeats) else None


def _keep(found: Results) -> None:
    recorded = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    tables = recorded.get("tables", {})
    for table, of in found.items():
        of = tables.get(table, {}) | of
        tables[table] = {method: of[method] for method in METHODS if method in of}
    whole = {"date": datetime.now(UTC).date().isoformat(), "tables": tables}
    RESULTS.write_text(json.dumps(whole, separators=(",", ":")) + "\n")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the default, plain Optuna and random search, 50 seeds")
    parser.add_argument("--repeats", type=int, help=f"searches of each method; {REPEATS}, or {QUICK_REPEATS} if quick")
    parser.add_argument("--tables", type=_tables, default=list(TABLES), help=f"of {', '.join(TABLES)}")
    parser.add_argument("--json", action="store_true", help="end with a line of JSON: the ratio of each table")
    arguments = parser.parse_args()
    arguments.repeats = arguments.repeats or (QUICK_REPEATS if arguments.quick else REPEATS)
    return arguments


def _tables(text: str) -> list[str]:
    if unknown := set(names := text.split(",")) - set(TABLES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: the tables are {', '.join(TABLES)}")
    return names
