"""The results as one JSON line, as RESULTS.json and as tables for people. Figures come from the run alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contestant import ALL, BARE, LIMITS
from imgcls.text import duration

Results = dict[str, Any]

NAMES = {
    "ours": "imgcls",
    "limit_nchw": "limit, NCHW",
    "limit_channels_last": "limit, channels-last",
    "moved_limit": "moved limit",
    "usual_0": "usual loop, 0 workers",
    "usual_2": "usual loop, 2 workers",
    "usual_4": "usual loop, 4 workers",
    "lightning": "Lightning",
    "timm": "timm",
    "ours_auto": "imgcls, threads of its choice",
    "sweep": "imgcls, sweep",
    "sweep_of_one_worker": "imgcls, sweep of one worker",
    "sweep_before": "imgcls, sweep of one worker, all threads",
}

METHOD = """
Everybody trains the same images (folders `train/` and `val/`), the same net from the same starting weights, with the
same batch size, optimizer (AdamW) and kind of augmentation, on torch's default number of threads, in a process of their
own. Imports are over before anything is measured, and while one works the others wait. Contestants take turns, round
after round; a ratio is taken within a round, and what stands here is the median of the rounds' ratios.

- **imgcls**: `prepare`, a `Task` and `fit`, as `train_run` uses them. Train images over the time of the train steps.
- **limit**: the bare step. Batches float32, normalised and in memory beforehand; forward, cross-entropy, backward and a
  fused AdamW; no data, no augmentation, no look at the loss. Of each round the faster of NCHW and channels-last counts.
- **moved limit**: the same step, channels-last, with what imgcls changes of torch on a processor: glibc keeps freed
  memory, and gradients of weights on small maps are matrix products. So imgcls can pass the limit that torch itself
  has; this one it can only come near to.
- **usual loop**: ImageFolder, torchvision's transforms image by image, DataLoader with 0, 2 and 4 workers, tqdm,
  `loss.item()` each step. **Lightning**: its Trainer at its defaults over the same loader, as many workers as cores.
  **timm**: `create_loader` and the step of its train.py, four workers that persist, no colour jitter; it has no quarter
  turns, so on solar cells it does less. Their train images over the wall time of the train epoch, files in the system's
  cache, validation left out, as it is for imgcls.
- **First epoch**: from the opening of the folder to the last step of the first epoch. For imgcls that includes
  decoding, hashing and the search for leaks, of val as well, with an empty image cache; the others prepare nothing.
"""


def summary(results: Results) -> Results:
    """What the quick form ends with; a part that was left out is empty or null."""
    works = results.get("works", {})
    return {
        "of_limit": {name: _rounded(work["of_limit"]) for name, work in works.items()},
        "vs_best_peer": {name: _rounded(work["vs_best_peer"]) for name, work in works.items()},
        "sweep_vs_usual": _rounded(results.get("sweep", {}).get("sweep_vs_usual")),
        "run_kept_beside_busy": _rounded(results.get("threads", {}).get("kept_beside_busy", {}).get("ours_auto")),
        "sweep_vs_one_worker": {
            state: _rounded(by_name["sweep_before"])
            for state, by_name in results.get("threads", {}).get("sweep_vs_one_worker", {}).items()
        },
        "tracker_share": _rounded(results.get("tracker", {}).get("tracker_share"), 4),
        "help_seconds": _rounded(results.get("verbs", {}).get("help_seconds")),
    }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def write_results(results: Results, folder: Path, name: str) -> None:
    """Writes `name.md` and `name.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown(results))


def markdown(results: Results) -> str:
    """The tables."""
    parts = [
        f"# Speed, measured\n\nWritten by `{results['command']}`, in {duration(results['seconds'])}.",
        _machine(results["machine"]),
    ]
    if results["form"] != "full":
        parts.append(
            f"This is the **{results['form']} form**: fewer images, rounds and epochs than in the full one, so "
            "that its figures scatter more."
        )
    writers = {
        "works": _works, "gpu": _gpu, "sweep": _sweep, "threads": _threads, "tracker": _tracker, "verbs": _verbs,
        "memory": _memory, "growth": _growth,
    }  # fmt: skip
    parts += [write(results[part]) for part, write in writers.items() if results.get(part)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _machine(machine: Results) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['date']}: {machine['processor']}, {machine['cores']} cores ({machine['vector_instructions']}), "
        f"{machine['torch_threads']} threads of torch, {machine['memory_gb']} GB, GPU: {machine['gpu']}. "
        f"{machine['system']}; {versions}. Load before the run: {machine['load_before']}."
    )


def _works(works: Results) -> str:
    """Parts a and b."""
    rows = [
        (
            name,
            _number(work["images_per_second"].get("ours")),
            _number(_limit(work["images_per_second"])),
            _times(work["of_limit"], _spread(work["of_limit_rounds"])),
            _times(work["of_moved_limit"], _spread(work["of_moved_limit_rounds"])),
            _number(max((work["images_per_second"].get(n, 0) for n in NAMES if n not in ("ours", *BARE)), default=0)),
            ", ".join(sorted({NAMES[peer] for peer in work["best_peers"]})) or "–",
            _times(work["vs_best_peer"], _spread(work["vs_best_peer_rounds"])),
            _times(work["first_epoch_vs_best_peer"]),
        )
        for name, work in works.items()
    ]
    head = (
        "work", "imgcls, images/s", "limit, images/s", "share of the limit", "of the moved limit",
        "best peer, images/s", "which",
        "imgcls / best peer", "first epoch: best peer's time / imgcls's",
    )  # fmt: skip
    lines = ["## Images per second, against the limit and the peers", METHOD.strip(), _table(head, rows)]
    lines.append("In brackets: the lowest and the highest round.")
    lines += [f"- `{name}`: {work['what']}{_left_out(work)}" for name, work in works.items()]
    lines += ["### Warm epochs, images/s (medians)", _by_contestant(works, "images_per_second")]
    lines += ["### First epoch, seconds (medians)", _by_contestant(works, "first_epoch_seconds", digits=2)]
    lines += ["### Memory of the main process, MB resident at the peak", _by_contestant(works, "peak_resident_mb")]
    if any(work["with_helpers_mb"] for work in works.values()):
        lines.append("### Memory in a warm epoch with all helper processes, MB at most (what they share counts once)")
        lines.append(_by_contestant(works, "with_helpers_mb"))
    return _paragraphs(*lines)


def _limit(speeds: Results) -> float | None:
    """For the eye; the ratio itself is taken round by round."""
    return max((speeds[name] for name in LIMITS if name in speeds), default=None)


def _left_out(work: Results) -> str:
    missing = ", ".join(NAMES[name] for name in work["left_out"])
    return f" (not installed: {missing})" if missing else ""


def _by_contestant(works: Results, what: str, digits: int = 0) -> str:
    rows = [
        (NAMES[name], *(_number(work[what].get(name), digits) for work in works.values()))
        for name in ALL
        if any(name in work[what] for work in works.values())
    ]
    return _table(("", *works), rows)


def _gpu(works: Results) -> str:
    rows = [
        (name, _number(work["images_per_second"]["ours"]), _number(_limit(work["images_per_second"])),
         _times(work["of_limit"], _spread(work["of_limit_rounds"])))
        for name, work in works.items()
    ]  # fmt: skip
    head = ("work", "imgcls, images/s", "bare CUDA step, images/s", "share of the bare step")
    return _paragraphs("## On CUDA (bfloat16 autocast, both)", _table(head, rows))


def _sweep(sweep: Results) -> str:
    """Part c."""
    rows = [
        (
            NAMES["ours"] if side == "ours" else "Optuna around the usual loop, 2 workers",
            duration(one[side]["seconds"]),
            f"{one[side]['best']:.3f} ± {one[side]['standard_error']:.3f}",
            one[side]["trials"],
            one[side]["pruned"],
            one[side]["epochs"],
            ", ".join(f"{count} of depth {depth}" for depth, count in sorted(one[side]["epochs_by_depth"].items())),
        )
        for one in sweep["rounds"]
        for side in ("ours", "usual")
    ]
    head = ("", "wall time", "best val/accuracy (± standard error)", "trials", "pruned", "epochs", "of these")
    return _paragraphs(
        "## The same sweep",
        f"{sweep['what']}. Same sampler and seeds, pruner, schedule and starting weights; each side from an empty "
        "image cache and an empty store. imgcls also writes checkpoints each epoch, predictions, pictures, a report.",
        _table(head, rows),
        f"The usual sweep takes **{sweep['sweep_vs_usual']:.2f} times** as long; by the epoch trained (the two prune "
        f"by their own scores) {sweep['per_epoch_vs_usual']:.2f} times.",
    )


def _threads(threads: Results) -> str:
    """Threads and workers."""
    quiet, busy = threads["rounds"][0]
    rows = [
        (
            NAMES[name],
            *(_number(median(one[state][name] for one in threads["rounds"])) for state in (quiet, busy)),
            f"**{kept:.2f}**",
            *(_times(threads["sweep_vs_one_worker"][state].get(name)) for state in (quiet, busy)),
            *(threads["sweeps"].get(f"{name}, {state}", "") for state in (quiet, busy)),
        )
        for name, kept in threads["kept_beside_busy"].items()
    ]
    head = (
        "", f"images/s, {quiet}", f"images/s, {busy}", "share that is left", f"imgcls's sweep / this, {quiet}",
        f"imgcls's sweep / this, {busy}", f"{quiet}", f"{busy}",
    )  # fmt: skip
    return _paragraphs(
        "## Beside a busy process",
        f"{threads['what']}. By default imgcls times a few steps when a run or a sweep begins, and chooses the number "
        "of threads and of workers. All threads are what it took before, as in the row `imgcls`. Medians of the rounds "
        "and of their ratios.",
        _table(head, rows),
    )


def _tracker(tracker: Results) -> str:
    """Part d, the record."""
    last = tracker["rounds"][-1]
    rows = [(name, f"{1000 * seconds:.0f}") for name, seconds in sorted(last["by_name"].items(), key=lambda i: -i[1])]
    rows.append(("checkpoints", f"{1000 * last['checkpoints']:.0f}"))
    return _paragraphs(
        "## What the record costs",
        f"{tracker['what']}. The tracker takes **{tracker['tracker_share']:.2%}** of the wall time of "
        f"`train_run`; writing the checkpoints, which any trainer does, another {tracker['checkpoints_share']:.2%}. "
        "Import and the opening of the store are left out.",
        f"Of a run of {last['wall']:.1f} s, milliseconds in:",
        _table(("", "ms"), rows),
    )


def _verbs(verbs: Results) -> str:
    """Part d, cold starts."""
    rows = [
        (f"`imgcls {name}`", f"{seconds:.2f}", _spread(verbs["rounds"][name]))
        for name, seconds in verbs["seconds"].items()
    ]
    return _paragraphs(
        "## Cold start of the verbs",
        "Seconds from the start of the process to its end, files in the system's cache.",
        _table(("", "median", "lowest to highest"), rows),
    )


def _memory(memory: Results) -> str:
    """Part d, memory."""
    rows = [
        (f"{one['images']:,}", f"{one['before']:.0f}", f"{one['training']:.0f}", f"{one['peak_resident']:.0f}")
        for one in memory["sizes"]
    ]
    head = (
        "train images",
        "private before training, MB",
        "private in training, at most, MB",
        "resident at the peak, MB",
    )
    return _paragraphs(
        "## Memory of the training process",
        f"{memory['what']}. Private is Private_Clean + Private_Dirty of `/proc/self/smaps_rollup`; the decoded images "
        "are mapped from a file, and count only as resident.",
        _table(head, rows),
    )


def _growth(growth: Results) -> str:
    """Part e."""
    lines = [
        "## Growth",
        "Seconds (medians) by size. The exponent is the slope of log time over log size by least squares (± its "
        "standard error), the last step's that between the two largest sizes; 1 is linear.",
    ]
    for what, by_name in growth.items():
        sizes = list(next(iter(by_name.values()))["seconds"])
        rows = [
            (
                name,
                *(f"{found['seconds'][size]:.3f}" for size in sizes),
                f"{found['exponent']:.2f} ± {found['standard_error']:.2f}",
                f"{found['last_step']:.2f}",
                "yes" if found["no_faster_than_linearly"] else "**no**",
            )
            for name, found in by_name.items()
        ]
        head = (what, *(f"{int(size):,}" for size in sizes), "exponent", "last step", "linear at most, within noise")
        lines.append(_table(head, rows))
    return _paragraphs(*lines)


def _spread(values: Iterable[float]) -> str:
    known = list(values)
    return f"{min(known):.2f} to {max(known):.2f}" if len(known) > 1 else ""


def _times(value: float | None, spread: str = "") -> str:
    if value is None:
        return "–"
    return f"**{value:.2f}**" + (f" ({spread})" if spread else "")


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _paragraphs(*lines: str) -> str:
    """Blank lines between all but the items of one list."""
    text = lines[0]
    for before, line in pairwise(lines):
        text += ("\n" if before.startswith("- ") and line.startswith("- ") else "\n\n") + line
    return text
