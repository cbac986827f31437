import json
import os

import pytest

from imgcls.search.joining import joined
from imgcls.search.study_place import StudyPlace
from imgcls.search.who_works import work_in_words
from tests.postgres import free_port
from tests.shell import typed


def test_doctor_says_who_works_on_what_since_when(project):
    place = StudyPlace(project.root, "tiny-01234567", "0" * 32, pruner_warmup=1, num_epochs=3)
    with project.tracker.start_run("tiny", kind="sweep", name="sweep", tags={"imgcls.study": place.name}) as run:
        assert work_in_words(project.tracker) == []  # before it has a study
        with joined(place, project.experiment()) as leases:
            assert leases.take("trial 7")
            assert leases.take("trial 8")
            (seven, eight) = work_in_words(project.tracker)
            told = json.loads(typed("doctor", "--json").stdout)
        assert work_in_words(project.tracker) == []
    assert seven.startswith(f"sweep {run.run_id}: process {os.getpid()} of ") and "works on trial 7 since 20" in seven
    assert "works on trial 8" in eight and eight.endswith("ago that it lives")
    assert "works on trial 7" in told["at_work"] and "works on trial 8" in told["at_work"]


def test_a_journal_is_looked_at_also_where_the_variable_names_a_server_that_does_not_answer(project, monkeypatch):
    place = StudyPlace(project.root, "tiny-01234567", "0" * 32, pruner_warmup=1, num_epochs=3)
    with (
        project.tracker.start_run("tiny", kind="sweep", name="sweep", tags={"imgcls.study": place.name}),
        joined(place, project.experiment()) as leases,
    ):
        assert leases.take("trial 7")
        port = free_port()
        monkeypatch.setenv("IMGCLS_STUDY_STORAGE", f"postgresql://me:secretword@127.0.0.1:{port}/studies")
        told = typed("doctor")
    seven, away, *_ = told.stdout.splitlines()
    assert "works on trial 7" in seven
    assert away.startswith("who works on the sweeps of this store cannot be said: ")
    assert f"storage at 127.0.0.1:{port} cannot be opened: " in away
    assert (told.returncode, told.stderr, "secretword" in told.stdout) == (0, "", False)


def test_a_storage_that_fails_in_its_own_way_is_said_in_one_line(project):
    place = StudyPlace(project.root, "tiny-01234567", "0" * 32, pruner_warmup=1, num_epochs=3)
    with project.tracker.start_run("tiny", kind="sweep", name="sweep", tags={"imgcls.study": place.name}):
        place.open(project.experiment())
        journal = project.root / "mlruns" / ".studies" / f"{place.name}.journal"
        journal.write_text("not what\nOptuna writes\n")
        (line,) = work_in_words(project.tracker)
    assert line.startswith("who works on the sweeps of this store cannot be said: JSONDecodeError: ")


@pytest.mark.distributed
@pytest.mark.parametrize("by_key", [True, False])
def test_a_study_that_only_the_experiment_or_the_variable_names_is_found(project, database, monkeypatch, by_key):
    place = StudyPlace(project.root, "tiny-01234567", "0" * 32, pruner_warmup=1, num_epochs=3)
    monkeypatch.setenv("PGPASSWORD", database.split("@")[0].rpartition(":")[2])
    address = f"postgresql://owner@{database.partition('@')[2]}"
    if by_key:
        file = project.root / "experiments" / "tiny.toml"
        file.write_text(file.read_text().replace("[search]", f'[search]\nstorage = "{address}"'))
    else:
        monkeypatch.setenv("IMGCLS_STUDY_STORAGE", address)
    with (
        project.tracker.start_run("tiny", kind="sweep", name="sweep", tags={"imgcls.study": place.name}),
        joined(place, project.experiment()) as leases,
    ):
        assert leases.take("trial 7")
        (line,) = work_in_words(project.tracker)
    assert "works on trial 7" in line


def test_a_study_that_cannot_be_reached_is_said(project, monkeypatch):
    with project.tracker.start_run("tiny", kind="sweep", name="sweep", tags={"imgcls.study": "tiny-01234567"}):
        monkeypatch.setenv("IMGCLS_STUDY_STORAGE", "sqlite:///study.db")
        (line,) = work_in_words(project.tracker)
    assert line.startswith(
        "who works on the sweeps of this store cannot be said: IMGCLS_STUDY_STORAGE = sqlite:///study.db"
    )
