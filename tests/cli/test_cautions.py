"""What looks alike in two splits, beside every score that any verb prints or records."""

import json

import pytest

from imgcls.cli import app
from tests.data.make import picture, write, write_class

NUM, SAID = "imgcls.num_near_leaked", "1 val or test image looks like an image of another split."


@pytest.fixture
def alike(project):
    """A test image that was saved again from one of train; gives the options that read these images."""
    for start, split in ((0, "train"), (100, "val"), (200, "test")):
        for label, kind in enumerate(("cat", "dog")):
            write_class(project.root / "images" / split / kind, range(start + 10 * label, start + 10 * label + 4))
    write(project.root / "images" / "train" / "cat" / "one.png", picture(0))
    write(project.root / "images" / "test" / "cat" / "again.jpg", picture(0), quality=90)
    keys = ("data.source=folder", "data.path=images", "train.epochs=1", "train.warmup_epochs=0", "model.width=4")
    space = ("search.space.train.warmup_epochs=[0]", "search.space.model.depth=[8]")
    return [part for key in (*keys, *space) for part in ("--set", key)]


@pytest.mark.slow
def test_images_that_look_alike_are_counted_beside_every_score(project, alike, capsys):
    def shown(*arguments):
        assert app(arguments, standalone_mode=False) in (0, None)
        text = capsys.readouterr().out
        assert app([*arguments, "--json"], standalone_mode=False) in (0, None)
        return text, json.loads(capsys.readouterr().out)

    text, sweep = shown("sweep", "tiny", "--trials", "2", *alike)
    found = {"sweep": (text, sweep), "confirm": shown("confirm", sweep["run_id"], "--top", "1", "--seeds", "1")}
    found["train"] = shown("train", "tiny", *alike)
    run_id = found["train"][1]["run_id"]
    found["evaluate"], found["rerun"] = shown("evaluate", run_id), shown("rerun", run_id)
    for verb, (text, facts) in found.items():
        assert SAID in text and facts[NUM] == 1, verb
    text, facts = shown("compare", run_id, found["confirm"][1]["imgcls.best_run_id"])
    assert text.count(SAID) >= 2 and (facts[f"{NUM}_1"], facts[f"{NUM}_2"]) == (1, 1)
    for verb in ("runs", "ledger"):
        text, rows = shown(verb)
        assert text.count(SAID) == len(rows) and {row[NUM] for row in rows} == {1}, verb

    for run in project.client.search_runs([e.experiment_id for e in project.client.search_experiments()]):
        kind, data = run.data.tags["imgcls.kind"], run.data
        assert (data.tags[NUM], data.metrics[NUM]) == ("1", 1.0), kind
        assert SAID in data.tags["mlflow.note.content"], kind
        files = {
            file.path
            for where in ("report", "figures")
            for file in project.client.list_artifacts(run.info.run_id, where)
        }
        assert not any("duplicates.png" in path for path in files), "one of the two is a test image"
        if "report/report.md" in files:
            assert SAID in project.tracker.read_text(run.info.run_id, "report/report.md"), kind
        if kind in ("train", "sweep"):
            pairs = project.tracker.read_text(run.info.run_id, "report/near_duplicates.csv").splitlines()
            assert pairs[1:] == ["train,train/cat/one.png,test,test/cat/again.jpg"]
