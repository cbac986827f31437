"""Records as runs leave them, made by hand: what reports say is read from these alone."""

from imgcls.config.keys import Experiment
from imgcls.run_record import RunRecord

TAGS = {
    "imgcls.num_train": "1500",
    "imgcls.num_val": "300",
    "imgcls.num_test": "656",
    "imgcls.device": "cpu: AMD EPYC, 2 threads",
    "imgcls.versions": '{"python": "3.11.7", "imgcls": "0.1.0", "torch": "2.14.1", "mlflow": "3.17.2"}',
    "imgcls.git_commit": "0123456789abcdef",
    "imgcls.git_dirty": "false",
    "imgcls.test_fingerprint": "fedcba9876543210",
    "imgcls.test_look": "1",
    "imgcls.squares": "2",
    "imgcls.loss": "2",
}

ENDS = ("low", "high")


def record(run_id, kind, *, params=None, metrics=None, **tags):
    """A completed run of an experiment whose keys have their defaults but for `params`."""
    experiment = Experiment(name="solar_cells").replace({"model.depth": 18, "model.width": 64, **(params or {})})
    named = {f"imgcls.{key}": str(value) for key, value in tags.items()}
    return RunRecord(
        run_id=run_id, experiment="solar_cells", name=run_id, status="FINISHED", started=0, params=experiment.params(),
        metrics=metrics or {}, tags={"imgcls.kind": kind, "imgcls.outcome": "completed", **TAGS, **named},
    )  # fmt: skip


def trained(run_id, kind, accuracy, loss=0.5, epoch=9, **options):
    """A run with its best val scores."""
    best = {"best/epoch": float(epoch), "best/val/accuracy": accuracy, "best/val/loss": loss}
    return record(run_id, kind, metrics=best, **options)


def evaluation(val, test, intervals, selecting="accuracy", further=None, **tags):
    """An evaluation's record; `intervals`: such as `test/loss` -> (low, high); `further`: metrics."""
    ends = {f"{name}_{end}": value for name, pair in intervals.items() for end, value in zip(ENDS, pair, strict=True)}
    gap = {"val_test_gap": val[selecting] - test[selecting]}
    metrics = {**val.metrics("val"), **test.metrics("test"), **ends, **gap, **(further or {})}
    return record("eval1", "evaluation", metrics=metrics, **tags)
