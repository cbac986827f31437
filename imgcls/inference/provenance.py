"""What a file that leaves the workbench says of itself: classes, preprocessing, where it comes from, its scores."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

from imgcls.evaluation.compare import evaluation_of
from imgcls.inference.run_model import RunModel
from imgcls.metrics import score
from imgcls.record import TEST, Tag
from imgcls.run_record import RunRecord
from imgcls.runs.val_predictions import as_logits, recorded_predictions
from imgcls.stored_names import BEST
from imgcls.tracking.provenance import versions
from imgcls.tracking.store import Tracker

EXPORTERS = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra `ship` that make the file or prove it."""

BEST_VAL = f"{BEST}val/"


def provenance(model: RunModel, tracker: Tracker) -> dict[str, str]:
    """The metadata of an exported model, without its proof: name -> text, or JSON.

    What the record does not have is left out.
    """
    record = model.record
    about = {
        "run_id": record.run_id,
        "experiment": record.experiment,
        "class_names": json.dumps(list(model.class_names)),
        "preprocessing": json.dumps(model.preprocessing.to_plain()),
        "temperature": repr(model.temperature),
        "network": record.params.get("model.name", ""),
        "config_hash": record.tags.get(Tag.CONFIG_HASH, ""),
        "data_fingerprint": record.fingerprint,
        "git_commit": record.tags.get(Tag.GIT_COMMIT, ""),
        "git_dirty": record.tags.get(Tag.GIT_DIRTY, ""),
        "val_scores": json.dumps(_val_scores(record, tracker)),
        "test_scores": json.dumps(scores) if (scores := _test_scores(record, tracker)) else "",
        "trained_with": json.dumps(record.versions),
        "exported_with": json.dumps(versions() | _exporters()),
    }
    return {name: text for name, text in about.items() if text}


def _val_scores(record: RunRecord, tracker: Tracker) -> dict[str, float]:
    """`val/SCORE` and the ends of its 95 % interval, at the kept epoch: from the recorded predictions."""
    scores = score(as_logits(recorded_predictions(record, tracker))).metrics("val")
    tracked = {name.removeprefix(BEST): value for name, value in record.metrics.items() if name.startswith(BEST_VAL)}
    return dict(sorted({**scores, **tracked}.items()))


def _test_scores(record: RunRecord, tracker: Tracker) -> dict[str, float]:
    """`test/SCORE`, the ends of its interval and `look`, its ordinal, of the latest evaluation; empty without one."""
    latest = evaluation_of(record, tracker)
    if latest is None:
        return {}
    scores = {name: value for name, value in sorted(latest.metrics.items()) if name.startswith(TEST)}
    return {"look": latest.look, **scores}


def _exporters() -> dict[str, str]:
    found = {}
    for name in EXPORTERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
