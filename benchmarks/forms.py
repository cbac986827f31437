"""How large each form of the benchmark is: full, quick (under twenty minutes on two cores), or a mere trial."""

from __future__ import annotations

from dataclasses import dataclass, replace

PARTS = ("works", "sweep", "threads", "tracker", "verbs", "memory", "growth")


@dataclass(frozen=True)
class Form:
    """Sizes of everything that is measured.

    Attributes:
        name: `full`, `quick` or `tiny`.
        rounds: in which ours meets the limit.
        peer_rounds: in which ours meets the peers.
        cold_rounds: first epochs from an empty cache, at least one.
        works: which works.
        photos: train images of `photos`.
        large_photos: train images of `large_photos`.
        solar_cells: train images of `solar_cells`; 0 for the real split, carved by content.
        fashion_mnist: train images of `fashion_mnist`.
        min_seconds: a measure of a fast contestant repeats epochs until it lasts so long.
        watch_memory: whether each contestant trains one more epoch while its memory, helpers included, is watched.
        sweep_images: train images of the sweep; 0 for the real split.
        sweep_trials: trials of the sweep.
        sweep_epochs: epochs of each of its trials.
        sweep_rounds: sweeps of each side.
        threads_rounds: rounds of runs and sweeps with and without a busy process.
        threads_seconds: of each of these sweeps.
        tracker_images: train images of the tracked run; 0 for the real split.
        tracker_epochs: epochs of the tracked run.
        tracker_rounds: tracked runs.
        verb_rounds: cold starts of each verb.
        memory_images: images of the large set whose memory is measured; 0 leaves it out.
        growth_images: images of the smallest set of four, each twice the one before; 0 leaves growth out.
        growth_runs: runs in the store.
        growth_rounds: measures at each size.
    """

    name: str = "full"
    rounds: int = 5
    peer_rounds: int = 2
    cold_rounds: int = 2
    works: tuple[str, ...] = ("photos", "large_photos", "solar_cells", "fashion_mnist")
    photos: int = 256
    large_photos: int = 192
    solar_cells: int = 960
    fashion_mnist: int = 6144
    min_seconds: float = 4.0
    watch_memory: bool = True
    sweep_images: int = 480
    sweep_trials: int = 12
    sweep_epochs: int = 5
    sweep_rounds: int = 1
    threads_rounds: int = 2
    threads_seconds: float = 30.0
    tracker_images: int = 0
    tracker_epochs: int = 25
    tracker_rounds: int = 1
    verb_rounds: int = 5
    memory_images: int = 100_000
    growth_images: int = 2000
    growth_runs: tuple[int, ...] = (10, 100, 1000)
    growth_rounds: int = 3


FULL = Form()
QUICK = Form(
    name="quick",
    rounds=4,
    peer_rounds=1,
    cold_rounds=1,
    photos=128,
    solar_cells=480,
    large_photos=96,
    fashion_mnist=2048,
    min_seconds=2.0,
    watch_memory=False,
    sweep_images=240,
    sweep_epochs=3,
    threads_rounds=1,
    threads_seconds=8.0,
    tracker_epochs=8,
    tracker_rounds=1,
    verb_rounds=2,
    memory_images=0,
    growth_images=0,
)
TINY = replace(
    QUICK,
    name="tiny",
    rounds=1,
    peer_rounds=1,
    photos=16,
    large_photos=4,
    solar_cells=24,
    fashion_mnist=256,
    min_seconds=0.0,
    watch_memory=True,
    sweep_images=24,
    sweep_trials=3,
    sweep_epochs=2,
    threads_seconds=2.0,
    tracker_images=24,
    tracker_epochs=2,
    verb_rounds=1,
    memory_images=300,
    growth_images=40,
    growth_runs=(3, 6, 12),
    growth_rounds=1,
)
"""For trying the benchmark itself: its figures mean nothing."""
