import json
import os

from imgcls.search.joining import joined
from imgcls.search.study import StudyPlace
from imgcls.search.who_works import work_in_words
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


def test_a_study_that_cannot_be_reached_is_said(project, monkeypatch):
    with project.tracker.start_run("tiny", kind="sweep", name="sweep", tags={"imgcls.study": "tiny-01234567"}):
        monkeypatch.setenv("IMGCLS_STUDY_STORAGE", "sqlite:///study.db")
        (line,) = work_in_words(project.tracker)
    assert line.startswith(
        "who works on the sweeps of this store cannot be said: IMGCLS_STUDY_STORAGE = sqlite:///study.db"
    )
