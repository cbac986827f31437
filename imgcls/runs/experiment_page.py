"""The page of an experiment in MLflow's UI: its description and saved views of its runs."""

import hashlib
import time
from collections.abc import Mapping

from imgcls.config.keys import Experiment
from imgcls.metrics import metric_named, reported
from imgcls.project import Project
from imgcls.record import Tag, best_name
from imgcls.run_record import RunRecord
from imgcls.stored_names import stored_name
from imgcls.tracking.mlflow_internals import MAX_EXPERIMENT_TAG_VAL_LENGTH
from imgcls.tracking.run import fitted
from imgcls.tracking.saved_view import TAG, SavedView
from imgcls.tracking.store import Tracker

SINGLE_RUNS = "runs"
"""Begins the key of the view of the runs that no sweep began, and the metric follows; that of a sweep is its study."""

DESCRIPTION_SHA256 = "imgcls.description_sha256"
"""The experiment's tag with the digest of the description that was written last: any other one is a user's."""


def write_page(experiment: Experiment, tracker: Tracker, sweep: RunRecord | None = None) -> None:
    """Writes the page of an experiment: its file's header as description, and a saved view.

    Args:
        experiment: of which a run or a sweep has begun.
        tracker: where its record is.
        sweep: whose trials the view shows; by default it shows the runs that no sweep began.
    """
    view = _view(experiment, sweep)
    stored = tracker.experiment(experiment.name)
    present = stored.tags
    tags = {} if f"{TAG}{view.key}" in present else view.tag(int(time.time() * 1000))
    stored.set_tags(tags | _description(header_of(experiment.name, tracker.project), present))


def _description(header: str, present: Mapping[str, str]) -> dict[str, str]:
    """The tags of the description, none where a user wrote the present one."""
    written = present.get(Tag.DESCRIPTION)
    if not header or (written is not None and present.get(DESCRIPTION_SHA256) != _digest(written)):
        return {}
    text = fitted(header, MAX_EXPERIMENT_TAG_VAL_LENGTH, "whole in the experiment's file")
    return {Tag.DESCRIPTION: text, DESCRIPTION_SHA256: _digest(text)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _view(experiment: Experiment, sweep: RunRecord | None) -> SavedView:
    metric, kind = experiment.search.metric, "train" if sweep is None else "trial"
    names = dict.fromkeys((metric, *reported(metric)))
    of_sweep = {} if sweep is None else {Tag.PARENT: sweep.run_id}
    return SavedView(
        key=f"{SINGLE_RUNS}-{metric.replace('/', '-')}" if sweep is None else sweep.study,
        name=f"Single runs by {metric}" if sweep is None else f"Trials of {sweep.study} by {metric}",
        tags={Tag.KIND: kind, **of_sweep},
        metrics=[stored_name(best_name(name)) for name in names],
        params=[] if sweep is None else list(experiment.search.space),
        ascending=not metric_named(metric).higher_is_better,
    )


def header_of(name: str, project: Project) -> str:
    """The page's description of an experiment: the comment at the head of its file in `experiments/`, as Markdown.

    Returns:
        Its lines without the comment signs; "" where the project has no such file, or the file has no header.
    """
    try:
        text = (project.root / "experiments" / f"{name}.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" ").rstrip())
    return "\n".join(lines).strip()
