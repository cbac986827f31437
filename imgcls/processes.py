"""The processes that train together with this one, as torchrun, or the driver of a sweep, says in their environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from imgcls.errors import InputError


@dataclass(frozen=True)
class Place:
    """The place of this process among those that train together, which torchrun started, or a sweep for a trial.

    Attributes:
        rank: its number among all of them, from 0.
        size: how many there are, on all machines together.
        local_rank: its number among those on this machine, from 0; in a sweep, those of all its workers.
        local_size: how many there are on this machine; in a sweep, of all its workers together.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def own_place() -> Place:
    """The place of this process; a process whose environment says nothing is the only one."""
    if "RANK" not in os.environ:
        return Place()
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
    return Place(*(int(os.environ.get(name, default)) for name, default in zip(names, (0, 1, 0, 1), strict=True)))


def refuse_several(verb: str) -> None:
    """Refuses a verb that several processes would do once each.

    Raises:
        InputError: torchrun started several processes.
    """
    if (size := own_place().size) > 1:
        raise InputError(
            f"{size} processes were started together (torchrun), and each of them would do all of `imgcls {verb}`; "
            f"start it once, without torchrun: imgcls {verb}"
        )
