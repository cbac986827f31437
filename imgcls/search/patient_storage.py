"""Storages of studies on a server, which wait for the server while it is away."""

import logging
import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from imgcls.errors import Interrupted
from imgcls.search.study_servers import StudyServer
from imgcls.signals import stop_requested

T = TypeVar("T")
log = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds for which a server that is away is waited for."""

SILENCE = 5.0
"""Seconds of waiting after which it is said."""

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two attempts; the last repeats."""


class _Patient(BaseStorage):
    """A storage on a server, each of whose calls waits for the server where it is away, and is made again.

    A call whose answer was lost may have been carried out. Made again, it changes nothing more, except that a new trial
    may have got a number for nobody.

    Args:
        server: that keeps the studies.
        connect: gives the storage that answers, once it is reached.
    """

    def __init__(self, server: StudyServer, connect: Callable[[], BaseStorage]) -> None:
        self._server = server
        self._connect = connect
        self._studies: set[int] = set()
        self._answer(connect)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials of a study."""
        self._studies.add(study_id)
        return self._answer(lambda: self._connect().get_all_trials(study_id, deepcopy, states))

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Sets a value of a trial.

        Optuna's proxy knows only the trials that were read from it, and forgets them where it is started again.
        """

        def call() -> None:
            self._connect().set_trial_param(trial_id, param_name, param_value_internal, distribution)

        try:
            self._answer(call)
        except KeyError:
            for study_id in self._studies:
                self.get_all_trials(study_id, deepcopy=False)
            self._answer(call)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Ends a trial, or says that it has begun; told of the same end again, it is content."""
        try:
            return self._answer(lambda: self._connect().set_trial_state_values(trial_id, state, values))
        except UpdateFinishedTrialError:
            trial = self.get_trial(trial_id)
            if trial.state == state and trial.values == (values and list(values)):
                return True
            raise

    def _answer(self, call: Callable[[], T]) -> T:
        """The answer to a call, which is made until there is one.

        Raises:
            Interrupted: there was none in time, or a stop was requested meanwhile.
            TrainingError: the server failed it, although it is there.
        """
        wait, num_failures = _Wait(self._server), 0
        while True:
            try:
                answer = call()
            except Exception as error:
                if self._server.is_away(error):
                    num_failures = 0
                    wait.spend(self._server.trouble(error))
                elif (num_failures := num_failures + 1) >= self._server.attempts(error):
                    raise self._server.told(error) from None
            else:
                wait.end()
                return answer


class _Wait:
    """A wait for a server that is away, which says when it has become long and when it is over."""

    def __init__(self, server: StudyServer) -> None:
        self._server = server
        self._started = time.monotonic()
        self._num_attempts = 0
        self._is_said = False

    def spend(self, trouble: str) -> None:
        """Waits before the next attempt.

        Raises:
            Interrupted: it has lasted for too long, or a stop was requested.
        """
        waited = time.monotonic() - self._started
        if by := stop_requested():
            raise Interrupted(f"stopped by {by} while the study's storage at {self._server.place} was away ({trouble})")
        if waited > PATIENCE:
            raise Interrupted(f"the study's storage at {self._server.place} was away for {waited:.0f} s ({trouble})")
        if waited > SILENCE and not self._is_said:
            self._is_said = True
            log.warning("waiting for the study's storage at %s: %s", self._server.place, trouble)
        time.sleep(PAUSES[min(self._num_attempts, len(PAUSES) - 1)])
        self._num_attempts += 1

    def end(self) -> None:
        """The server has answered."""
        if self._is_said:
            waited = time.monotonic() - self._started
            log.warning("the study's storage at %s is back after %.0f s", self._server.place, waited)


def _waiting(name: str) -> Callable[..., Any]:
    """The method of a storage, which waits for its server."""

    def method(self: _Patient, *args: Any, **kwargs: Any) -> Any:
        return self._answer(lambda: getattr(self._connect(), name)(*args, **kwargs))

    return method


def _methods() -> Iterator[str]:
    """Names of the methods of Optuna's storages that `_Patient` leaves to `_waiting`."""
    for name, member in vars(BaseStorage).items():
        if callable(member) and not name.startswith("_") and name not in vars(_Patient):
            yield name


PatientStorage: type[_Patient] = type("PatientStorage", (_Patient,), {name: _waiting(name) for name in _methods()})
"""Class of storages that wait for their server, whichever of Optuna's methods is called."""
