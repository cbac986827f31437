"""Makes docs/record.md from the names in imgcls/record.py: `python docs/record.py`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from imgcls.record import ALL, PUBLIC_NAMES, TRAINED, WITH_IMAGES, Kind

INTRODUCTION = """# What a run leaves in MLflow

Made by `python docs/record.py` from `imgcls/record.py`. Other programs may read these names, so each keeps its meaning.

Every key of the experiment file is a parameter under its dotted name, such as `train.lr`, unless the network or the
augmentation ignores it; the artifact `config.toml` has every key. A run may lack a name of its kind: earlier versions
did not write all of them, and some stand only where there is something to say. SCORE is the name of a score such as
`accuracy` or `loss`, SPLIT is `val` or `test`, and `{}` stands for a number or a name. The step of a metric is the
number of completed epochs.

In MLflow's UI a score at the kept epoch stands beside its curve: `val/accuracy_best`. `--json` and the library call it
`best/val/accuracy`, and `best_epoch` is `best/epoch` there. Earlier versions stored those names, and such runs are read
as well.

"trained" runs are of the kinds train, trial, confirm and rerun.
"""
GROUPS: dict[tuple[Kind, ...], str] = {
    ALL: "every kind",
    WITH_IMAGES: "sweep and trained",
    TRAINED: "trained",
    (*TRAINED, "evaluation"): "trained and evaluation",
}
TITLES = {"tag": "Tags", "metric": "Metrics", "artifact": "Artifacts", "version tag": "Tags of a registered version"}


def page() -> str:
    """The whole page as Markdown."""
    parts = [INTRODUCTION]
    for sort, names in groupby(PUBLIC_NAMES, key=lambda each: each.sort):
        parts.append(f"\n## {TITLES[sort]}\n\n| name | runs | what it says |\n|---|---|---|\n")
        parts += [f"| `{each.name}` | {_runs(each.kinds)} | {each.meaning} |\n" for each in names]
    return "".join(parts)


def _runs(kinds: tuple[Kind, ...]) -> str:
    return GROUPS.get(kinds, ", ".join(kinds))


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
