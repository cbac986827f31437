"""The page of an experiment in MLflow's UI, as its store holds it; tests/browser looks at it in a browser."""

import base64
import json
import zlib

import pytest

from imgcls.project import Project
from imgcls.run_record import RunRecord
from imgcls.runs.experiment_page import header_of, write_page

HEADER = "# Digits of 8x8 pixels.\n#\n#     imgcls sweep tiny\nname = 'tiny'\n# not this\n"


@pytest.fixture(autouse=True)
def begun(project):
    """The experiment, as its first run makes it."""
    project.client.create_experiment("tiny")


def tags_of(project):
    return project.client.get_experiment_by_name("tiny").tags


def view_of(value):
    """As MLflow's page reads it."""
    envelope = json.loads(value)
    assert isinstance(envelope["createdAt"], int) and envelope["name"]
    packed = envelope["state"].removeprefix("deflate;")
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_sweep_has_a_view_of_its_trials_by_the_metric_that_selects(project):
    sweep = RunRecord("ab12", "tiny", "sweep", "RUNNING", 0, {}, {}, {"imgcls.kind": "sweep", "imgcls.study": "tiny-1"})
    experiment = project.experiment("search.metric=val/loss")
    write_page(experiment, project.tracker, sweep)
    view = view_of(tags_of(project)["mlflow.sharedViewState.tiny-1"])
    assert view["searchFilter"] == "tags.`imgcls.kind` = 'trial' and tags.`mlflow.parentRunId` = 'ab12'"
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`val/loss_best`", True)
    searched = [f"params.`{key}`" for key in ("train.lr", "train.warmup_epochs", "model.depth")]
    assert view["selectedColumns"] == [
        "metrics.`val/loss_best`", "metrics.`val/accuracy_best`", *searched, "attributes.`Duration`",
    ]  # fmt: skip


def test_what_somebody_saved_in_the_view_stays(project):
    write_page(project.experiment(), project.tracker)
    key = "mlflow.sharedViewState.runs-val-accuracy"
    assert view_of(tags_of(project)[key])["orderByAsc"] is False
    experiment = project.client.get_experiment_by_name("tiny")
    project.client.set_experiment_tag(experiment.experiment_id, key, "mine")
    write_page(project.experiment(), project.tracker)
    assert tags_of(project)[key] == "mine"
    write_page(project.experiment("search.metric=val/loss"), project.tracker)
    view = view_of(tags_of(project)["mlflow.sharedViewState.runs-val-loss"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`val/loss_best`", True)


def test_the_header_of_its_file_describes_an_experiment(project):
    file = project.root / "experiments" / "tiny.toml"
    file.write_text(HEADER)
    write_page(project.experiment("data.source=digits"), project.tracker)
    assert tags_of(project)["mlflow.note.content"] == "Digits of 8x8 pixels.\n\n    imgcls sweep tiny"
    file.write_text("name = 'tiny'\n# not a header\n")
    assert header_of("tiny", Project(project.root)) == header_of("absent", Project(project.root)) == ""


@pytest.mark.parametrize("written", ["by a user", ""])
def test_a_description_that_a_user_wrote_or_emptied_stays(project, written):
    file, note = project.root / "experiments" / "tiny.toml", "mlflow.note.content"
    id_ = project.client.get_experiment_by_name("tiny").experiment_id
    for header in ("first", "second"):
        file.write_text(f"# {header}\n")
        write_page(project.experiment("data.source=digits"), project.tracker)
        assert tags_of(project)[note] == header
    project.client.set_experiment_tag(id_, note, written)
    file.write_text("# third\n")
    write_page(project.experiment("data.source=digits"), project.tracker)
    assert tags_of(project)[note] == written


def test_a_description_from_before_the_first_run_stays(project):
    id_ = project.client.get_experiment_by_name("tiny").experiment_id
    project.client.set_experiment_tag(id_, "mlflow.note.content", "by a user")
    (project.root / "experiments" / "tiny.toml").write_text(HEADER)
    write_page(project.experiment("data.source=digits"), project.tracker)
    assert tags_of(project)["mlflow.note.content"] == "by a user"


def test_a_header_longer_than_mlflow_keeps_is_shortened_and_says_so(project):
    (project.root / "experiments" / "tiny.toml").write_text("# word\n" * 5000)
    for _ in range(2):
        write_page(project.experiment("data.source=digits"), project.tracker)
        text = tags_of(project)["mlflow.note.content"]
        assert len(text) == 20_000 and text.endswith("whole in the experiment's file)")
