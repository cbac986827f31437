"""The leases of a study's trials, by their numbers: on which this process works, and on which others do."""

from imgcls.search.leases import Entry, Lease, Leases

OF_TRIAL = "trial "
"""How the name of a trial's lease begins; its number follows."""


class TrialLeases:
    """The leases of a study's trials.

    Args:
        leases: of the processes that work on the study; None where this one is alone and needs none.
    """

    def __init__(self, leases: Leases | None) -> None:
        self._leases = leases

    @property
    def entry(self) -> Entry | None:
        """This process's entry; None where it is alone."""
        return None if self._leases is None else self._leases.entry

    def take(self, number: int, *, seems_free: bool = False) -> Lease | None:
        """Takes the lease of a trial; None where another process works on it. For `seems_free` see `Leases.take`."""
        what = f"{OF_TRIAL}{number}"
        return Lease(what) if self._leases is None else self._leases.take(what, seems_free=seems_free)

    def give_back(self, number: int) -> None:
        """Gives back the lease of a trial, for others to take."""
        if self._leases is not None:
            self._leases.give_back(f"{OF_TRIAL}{number}")

    def check(self, *, now: bool = False) -> None:
        """Makes sure that this process may still write what comes of its trials, by a look at the storage if `now`.

        Raises:
            LeaseLost: others have taken its trials over.
        """
        if self._leases is not None:
            (self._leases.fence.renew if now else self._leases.fence.check)()

    def elsewhere(self) -> set[int]:
        """Numbers of the trials that other processes work on."""
        held = self._leases.held_elsewhere() if self._leases is not None else set()
        return {int(what.removeprefix(OF_TRIAL)) for what in held if what.startswith(OF_TRIAL)}
