"""Joining a sweep: what its processes tell one another through the study, and which of them makes the sweep's run.

One process holds the lease of the run. It makes the run, or takes it up, puts the trials that are planned beforehand
into the study, and writes the end. The others wait until the study names the run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import uuid4

from optuna import Study

from imgcls.config.keys import Experiment
from imgcls.record import Tag
from imgcls.search.leases import Leases
from imgcls.search.study_place import StudyPlace
from imgcls.tracking.claims import claim, claims_id, is_claimed
from imgcls.tracking.provenance import who_runs

PARENT = "the sweep's run"
"""What is held by whoever writes the beginning and the end of a sweep's run."""

SWEEP_RUN_ID = "sweep_run_id"
"""Attribute of a study: the id of the sweep's run."""


@contextmanager
def joined(place: StudyPlace, experiment: Experiment) -> Iterator[Leases]:
    """Joins the processes of a study for the length of the block; gives the leases by which they share its trials.

    A process of the same folder is known to be gone as soon as the kernel has freed its claim.

    Args:
        place: of the study.
        experiment: that is searched, with overrides.
    """
    claims, name, who = claims_id(place.root), f"worker-{uuid4().hex}", who_runs()
    about = {"host": who[Tag.HOST], "pid": who[Tag.PID], "claims": claims, "claim": name}

    def is_dead(of: Mapping[str, str]) -> bool:
        return of["claims"] == claims and not is_claimed(place.root, of["claim"])

    with claim(place.root, name, "this process"):
        leases = Leases(place.open(experiment), experiment.search.lease, about, is_dead)
        with leases.renewed():
            yield leases


def note_run_id(study: Study, run_id: str) -> None:
    """Tells those who join a study the run of its sweep, once the trials that are planned beforehand are there."""
    study.set_user_attr(SWEEP_RUN_ID, run_id)


def run_id_of(study: Study) -> str:
    """The run of a study's sweep; "" before it can be worked on."""
    return str(study.user_attrs.get(SWEEP_RUN_ID, ""))
