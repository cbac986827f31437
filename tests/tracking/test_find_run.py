"""Which run a word, an id or the beginning of one means."""

import pytest
from mlflow.entities import RunStatus, RunTag

from imgcls.errors import InputError
from imgcls.tracking.find_run import find_run

IDS = {
    "train": "aaaaaa1" + "0" * 25,
    "sweep": "aaaaaa2" + "0" * 25,
    "trial": "bbbbbb1" + "0" * 25,
    "evaluation": "cccccc1" + "0" * 25,
    "later, unfinished": "dddddd1" + "0" * 25,
    "later evaluation": "ffffff1" + "0" * 25,
}


@pytest.fixture(scope="module")
def store(make_project):
    """Runs written by MLflow's own client, with ids as they please us; the sweep began first and ended last."""
    project = make_project()
    client = project.client
    experiment = client.create_experiment("birds")

    def write(run_id, began, ended, outcome="completed", **tags):
        kind = tags.pop("kind")
        run = client.create_run(experiment, start_time=began, run_name=f"a {kind}")
        tags = [RunTag(f"imgcls.{key}", value) for key, value in {"kind": kind, "outcome": outcome, **tags}.items()]
        client.log_batch(run.info.run_id, tags=tags)
        if ended:
            client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.FINISHED), ended)
        rename(project, run.info.run_id, run_id)

    write(IDS["sweep"], 1_000, 9_000, kind="sweep", best_run_id=IDS["trial"])
    write(IDS["trial"], 1_500, 2_000, kind="trial")
    write(IDS["train"], 3_000, 4_000, kind="train")
    write(IDS["evaluation"], 5_000, 10_000, kind="evaluation")
    write(IDS["later evaluation"], 7_000, 8_000, kind="evaluation")
    write(IDS["later, unfinished"], 6_000, None, outcome="running", kind="train")
    return project


def rename(project, old, new):
    """MLflow draws ids at random; only its database can give a run one of ours."""
    import sqlite3

    with sqlite3.connect(project.root / "mlflow.db") as database:
        database.execute("PRAGMA foreign_keys = OFF")
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [column[1] for column in database.execute(f"PRAGMA table_info({table})")]
            if "run_uuid" in columns:
                database.execute(f"UPDATE {table} SET run_uuid = ? WHERE run_uuid = ?", (new, old))
    database.close()


@pytest.mark.parametrize(
    ("text", "means"),
    [
        (IDS["train"], "train"),
        ("aaaaaa1", "train"),
        ("AAAAAA2", "sweep"),
        ("bbbbbb", "trial"),
        ("cccccc10000", "evaluation"),
        ("last", "sweep"),
        ("best", "trial"),
    ],
)
def test_an_id_its_beginning_and_two_words_mean_one_run(store, text, means):
    assert find_run(text, store.tracker).run_id == IDS[means]


def test_words_say_which_run_they_stand_for(store, caplog):
    caplog.set_level("INFO", "imgcls")
    find_run("last", store.tracker)
    find_run("best", store.tracker)
    find_run("aaaaaa1", store.tracker)
    assert caplog.messages == [
        f"last is {IDS['sweep']} (sweep, birds, a sweep, 1970-01-01 00:00:01 UTC)",
        f"best is {IDS['trial']} (trial, birds, a trial, 1970-01-01 00:00:01 UTC)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aaaaaa", f"begins the ids of 2 runs; give more characters of one:\n  {IDS['sweep']} (sweep, birds"),
        ("aaaaaa", f"\n  {IDS['train']} (train, birds, a train, 1970-01-01 00:00:03 UTC)"),
        ("bbbbb", "'bbbbb' is too short to name a run; give the first six characters of its id"),
        ("eeeeee", "no run 'eeeeee' in "),
        ("lst", "no run 'lst' (did you mean `last`?) in "),
        ("lats", "no run 'lats' (did you mean `last`?) in "),
        ("Best", "no run 'Best' (did you mean `best`?) in "),
        ("bird", f"no run 'bird' (did you mean {IDS['later, unfinished']} (train, birds, "),
        ("e" + IDS["train"][1:], f"(did you mean {IDS['train']} (train, birds"),
        (IDS["train"][:-1] + "1", f"(did you mean {IDS['train']} (train, birds"),
        ("%", "no run '%' in "),
        ("______", "no run '______' in "),
    ],
)
def test_what_means_no_run_or_several_is_refused_with_what_there_is(store, text, message):
    with pytest.raises(InputError) as refused:
        find_run(text, store.tracker)
    assert message in str(refused.value)


def test_an_empty_store_has_neither_a_last_nor_a_best(project):
    with pytest.raises(InputError, match="no run has finished in this store"):
        find_run("last", project.tracker)
    with pytest.raises(InputError, match="no sweep has finished with a winner"):
        find_run("best", project.tracker)


def test_a_deleted_run_is_found_by_its_whole_id_alone(project):
    client = project.client
    run_id = client.create_run(client.create_experiment("birds")).info.run_id
    assert find_run(run_id[:8], project.tracker).run_id == run_id
    client.delete_run(run_id)
    assert find_run(run_id, project.tracker).is_deleted
    with pytest.raises(InputError, match="no run"):
        find_run(run_id[:8], project.tracker)
