"""The guard of a tracker: what is asked before anything is written to a run that other processes may take over."""

from collections.abc import Callable
from dataclasses import dataclass


def _always() -> None:
    """Lets every write pass."""


@dataclass(frozen=True)
class Guard:
    """The guard of what is written; the default lets everything pass.

    Attributes:
        check: raises LeaseLost where this process may not write any more.
        takes_over: whether a run that another process of this folder holds is taken from it, because whoever asks has
            made sure of its right to it.
        is_everywhere: whether it is taken from processes of other machines and folders too.
    """

    check: Callable[[], None] = _always
    takes_over: bool = False
    is_everywhere: bool = False
