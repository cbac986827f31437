"""Pictures and numbers of val that completed runs leave: whose, which, and what they show."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import precision_recall_fscore_support

from imgcls.record import Artifact
from imgcls.search import winner as winner_module
from imgcls.search.sweep import Sweep
from imgcls.search.winner import draw_winner
from imgcls.tracking.run import Run
from tests.data.make import write

FIGURES = {
    "val_confusion_matrix.png", "val_mistakes.png", "val_reliability.png", "val_label_errors.png", "val_grad_cam.png",
    "training_sample.png",
}  # fmt: skip
QUICK = ("train.epochs=1", "train.warmup_epochs=0")


def rows(project, run_id, name):
    return list(csv.DictReader(io.StringIO(project.tracker.read_text(run_id, name))))


def figures(project, run_id):
    """Names of the pictures of a run that show val or the training images, each an image that opens."""
    folder = project.tracker.get(run_id).folder / "figures"
    for path in folder.glob("*.png"):
        Image.open(path).load()
    return {path.name for path in folder.glob("*.png")} - {"curves.png", "near_duplicates.png"}


@pytest.mark.usefixtures("no_test_split")
@pytest.mark.slow
def test_a_single_run_leaves_pictures_and_every_run_its_numbers(project):
    run_id = project.train(*QUICK, "report.figures=winner").run_id
    assert figures(project, run_id) == FIGURES
    predictions = rows(project, run_id, "predictions/val.csv")
    names = sorted({row["label"] for row in predictions})
    labels, predicted = ([names.index(row[column]) for row in predictions] for column in ("label", "prediction"))
    expected = precision_recall_fscore_support(labels, predicted, labels=range(len(names)), zero_division=0)
    classes = rows(project, run_id, "report/val_per_class.csv")
    assert [row["class"] for row in classes] == names
    for column, values in zip(("precision", "recall", "f1", "num_images"), expected, strict=True):
        np.testing.assert_allclose([float(row[column] or 0) for row in classes], values)
    errors = rows(project, run_id, "report/label_errors.csv")
    wrong = {row["image"] for row in predictions if row["label"] != row["prediction"]}
    assert wrong <= {row["image"] for row in errors}
    shares = [float(row["prob_label"]) for row in errors]
    assert shares == sorted(shares)
    by_name = {row["image"]: row for row in predictions}
    for row in errors[:5]:
        calibrated = by_name[row["image"]][f"calibrated/{row['label']}"]
        assert float(row["prob_label"]) == pytest.approx(float(calibrated), rel=1e-6)


@pytest.mark.parametrize(("kind", "asked", "has_them"), [
    ("trial", "winner", False), pytest.param("trial", "all", True, marks=pytest.mark.slow), ("train", "none", False),
])  # fmt: skip
def test_pictures_are_drawn_of_whom_the_key_names(project, kind, asked, has_them):
    run_id = project.train(*QUICK, f"report.figures={asked}", kind=kind).run_id
    assert figures(project, run_id) == (FIGURES if has_them else set())
    assert project.tracker.has_artifact(run_id, "report/label_errors.csv")


SEARCH = ("search.space.train.warmup_epochs=[0]", "search.space.model.depth=[8]", "search.trials=2")
ON_VAL = ("Classes, on val", "Mistakes on val", "Labels that are likely wrong", "Confidence on val")


@pytest.mark.usefixtures("no_test_split")
@pytest.mark.parametrize("asked", [pytest.param("all", marks=pytest.mark.slow), "none"])
def test_a_sweep_reports_numbers_on_val_with_as_many_pictures_as_were_asked_for(project, asked):
    result = Sweep(project.experiment(*QUICK, *SEARCH, f"report.figures={asked}"), project.tracker).run()
    wanted = FIGURES if asked == "all" else set()
    assert {trial.run_id: figures(project, trial.run_id) for trial in project.runs(kind="trial")} == dict.fromkeys(
        result.leaderboard["run_id"], wanted
    )
    text = project.tracker.read_text(result.run_id, Artifact.REPORT)
    assert all(f"\n## {heading}\n" in text for heading in ON_VAL)
    assert ("If `report.figures` is `none`, set it to `winner`" in text) == (asked == "none")
    assert ("\n## Training images\n" in text) == (asked == "all")
    assert all((f"*Figure `figures/{name}`*" in text) == (asked == "all") for name in FIGURES)
    table = text.split("\n## Mistakes on val\n")[1].split("| --- | --- | --- | --- |\n")[1].split("\n\n")[0]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    predictions = {row["image"]: row for row in rows(project, result.best_run_id, "predictions/val.csv")}
    wrong = [row for row in predictions.values() if row["label"] != row["prediction"]]
    surest = sorted(-float(row[f"calibrated/{row['prediction']}"]) for row in wrong)[:10]
    assert [f"{-probability:.1%}" for probability in surest] == [cells[3] for cells in shown]
    assert all(cells[1:3] == [predictions[cells[0]]["label"], predictions[cells[0]]["prediction"]] for cells in shown)


@pytest.mark.slow
@pytest.mark.usefixtures("no_test_split")
def test_pictures_that_were_not_asked_for_are_drawn_when_they_are(project):
    settings = (*QUICK, *SEARCH[:2], "search.trials=1")
    first = Sweep(project.experiment(*settings, "report.figures=none"), project.tracker).run()
    again = Sweep(project.experiment(*settings, "report.figures=winner"), project.tracker).run()
    assert again.run_id == first.run_id and figures(project, again.best_run_id) == FIGURES
    assert "`report.figures` is `none`" not in project.tracker.read_text(again.run_id, Artifact.REPORT)


def test_the_key_changes_no_identity(project):
    asked = [project.experiment(f"report.figures={figures}").config_hash() for figures in ("winner", "all", "none")]
    assert len(set(asked)) == 1


@pytest.mark.parametrize("where", ["imgcls.runs.val_figures.grad_cam", "matplotlib.figure.Figure.savefig"])
def test_a_run_whose_pictures_cannot_be_drawn_is_completed_and_says_why(project, monkeypatch, caplog, where):
    def fail(*_, **__):
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(where, fail)
    run_id = project.train(*QUICK, "report.figures=winner").run_id
    assert project.tracker.get(run_id).outcome == "completed"
    assert f"run {run_id} goes on without pictures that could not be drawn" in caplog.text


@pytest.mark.slow
def test_a_sweep_whose_winners_pictures_cannot_be_drawn_writes_its_report(project, monkeypatch, caplog):
    settings = (
        *QUICK, "search.trials=1", "search.space.train.warmup_epochs=[0]", "search.space.model.depth=[8]",
        "report.figures=winner",
    )  # fmt: skip
    real = winner_module.rebuild

    def with_another_checkpoint(record, tracker):
        with (record.folder / Artifact.BEST).open("ab") as file:
            file.write(b"changed")
        return real(record, tracker)

    monkeypatch.setattr(winner_module, "rebuild", with_another_checkpoint)
    result = Sweep(project.experiment(*settings), project.tracker).run()
    assert project.tracker.get(result.run_id).outcome == "completed"
    assert project.tracker.has_artifact(result.run_id, Artifact.REPORT_HTML)
    assert f"run {result.best_run_id} goes on without pictures" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("no_test_split")
def test_a_sweep_that_was_killed_before_its_pictures_draws_its_winners_once(project, monkeypatch):
    class KilledError(BaseException):
        """Stands for a kill at one line: nobody catches it."""

    written = []

    def killed(run, name, content, real=Run.log_bytes):
        if name == Artifact.VAL_MISTAKES and not written:
            written.append(name)
            raise KilledError
        return real(run, name, content)

    settings = (
        *QUICK, "search.trials=2", "search.space.train.warmup_epochs=[0]", "search.space.model.depth=[8]",
        "report.figures=winner",
    )  # fmt: skip
    monkeypatch.setattr(Run, "log_bytes", killed)
    with pytest.raises(KilledError):
        Sweep(project.experiment(*settings), project.tracker).run()
    result = Sweep(project.experiment(*settings), project.tracker).run()
    trials = project.runs(kind="trial")
    assert {trial.run_id: figures(project, trial.run_id) for trial in trials} == {
        trial.run_id: FIGURES if trial.run_id == result.best_run_id else set() for trial in trials
    }
    winner = project.tracker.get(result.best_run_id)
    assert (winner.status, winner.outcome) == ("FINISHED", "completed")
    # Nothing is drawn again.
    before = {path: path.stat().st_mtime_ns for path in winner.folder.rglob("*.png")}
    draw_winner(winner, project.experiment(*settings), project.tracker)
    assert {path: path.stat().st_mtime_ns for path in winner.folder.rglob("*.png")} == before
    page = project.tracker.read_text(result.run_id, "report/report.html")
    assert page.count("data:image/png;base64,") >= len(FIGURES)
    for heading in ("Mistakes on val", "Labels that are likely wrong", "Training images"):
        assert f">{heading}</h2>" in page
    assert f"/runs/{result.best_run_id}" in page


@pytest.mark.slow
def test_planted_label_errors_are_found(project):
    """Of scikit-learn's digits, 5 % get another label by plan, and the first k rows are as many as are wrong in val."""
    digits, draws = load_digits(), np.random.default_rng(0)
    planted = set(draws.choice(len(digits.target), len(digits.target) // 20, replace=False).tolist())
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        given = (label + draws.integers(1, 10)) % 10 if number in planted else label
        write(project.root / "images" / str(given) / f"{number}.png", (image * 15.9).astype(np.uint8))
    settings = ("data.source=folder", "data.path=images", "data.channels=1", "data.allow_leaks=true", "train.epochs=12")
    run_id = project.train(*settings, "report.figures=winner").run_id
    is_planted = {row["image"]: int(row["image"].split("/")[1][:-4]) in planted
                  for row in rows(project, run_id, "predictions/val.csv")}  # fmt: skip
    k = sum(is_planted.values())
    assert k >= 8
    found = [is_planted[row["image"]] for row in rows(project, run_id, "report/label_errors.csv")[:k]]
    assert sum(found) / k >= 0.9
    assert project.tracker.has_artifact(run_id, "figures/val_label_errors.png")
