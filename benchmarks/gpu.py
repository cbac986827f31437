"""The share of the bare CUDA step that ours reaches, where torch finds a CUDA device.

Both in bfloat16 autocast; the bare step is the faster of the two layouts. The peers are not measured here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.arena import players
from benchmarks.contestant import LIMITS
from benchmarks.forms import Form
from benchmarks.throughput import Tell, compare
from benchmarks.works import make_work


def measure_gpu(form: Form, into: Path, tell: Tell) -> dict[str, Any]:
    """Ours and the limit on CUDA, on the works that need no package of their own."""
    names = [name for name in ("fashion_mnist", "photos") if name in form.works]
    found: dict[str, Any] = {}
    with players(("ours", *LIMITS)) as contestants:
        for number, name in enumerate(names):
            work = make_work(name, form, into).on("cuda")

            def tell_work(share: float, what: str, number: int = number, name: str = name) -> None:
                tell((number + share) / len(names), f"{name} on CUDA: {what}")

            found[name] = compare(work, form, tell_work, contestants)
    return found
