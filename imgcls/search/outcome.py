"""The outcome of a job that an engine trains, in whatever process it does."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Generic, TypeVar

from imgcls import terminal
from imgcls.errors import ImgclsError
from imgcls.machine_failures import explain
from imgcls.runs.record_writer import Finished
from imgcls.runs.together import follow
from imgcls.search.trial import Job
from imgcls.signals import interruption
from imgcls.tracking.claims import ClaimedError
from imgcls.tracking.credentials import scrubbed
from imgcls.training.parallel import own_ranks

J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Outcome(Generic[J]):
    """An engine's answer for one job: a result, an error, or an interruption.

    Attributes:
        job: that was run.
        finished: its result.
        error: why the job has no result; empty if it has one.
        interrupted: whether the job was not to blame: a signal, a killed worker, or a time that was over.
        leaves: whether the worker exits after this answer, because it was asked to stop.
    """

    job: J
    finished: Finished | None = None
    error: str = ""
    interrupted: bool = False
    leaves: bool = False


def answer(job: J) -> Outcome[J]:
    """Trains a job in this process; an engine's answer, whatever happens but a second request to stop.

    Of several processes that train it together, the first one runs it, and the others train along.
    """
    ranks = own_ranks()
    try:
        return Outcome(job, finished=follow(job.prepare()) if ranks.rank else ranks.from_first(job.run()))
    except (KeyboardInterrupt, ClaimedError) as error:
        return Outcome(job, error=str(error), interrupted=True)
    except Exception as error:
        if (asked := interruption(error)) is not None:
            return Outcome(job, error=str(asked), interrupted=True)
        if isinstance(error, ImgclsError):
            return Outcome(job, error=str(error))
        if (explained := explain(error)) is not None:
            return Outcome(job, error=scrubbed(str(explained)))
        terminal.stderr().write(scrubbed(traceback.format_exc()))
        return Outcome(job, error=scrubbed(f"{type(error).__name__}: {error}"))
