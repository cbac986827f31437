"""Parts a and b: images per second of ours, of the limit and of the peers, round by round, one after another.

Ours meets the limit in rounds of their own, in which the turns are short, because a few per cent are to be told apart
on a machine whose speed drifts; and the peers in others. Every ratio is taken within a round; what is reported is the
median of the rounds' ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.arena import Player, available
from benchmarks.contestant import ALL, BARE, LIMITS, MOVED_LIMIT, PEERS, Epoch
from benchmarks.forms import Form
from benchmarks.works import Work

TURNS = 2
"""Turns that each has in one round of ours and the limit; with the peers, which differ by more, it is one."""

Round = dict[str, float]
"""Contestant -> images per second in one round."""

Tell = Callable[[float, str], None]
"""(share of the work that is done, what comes next)."""


def compare(work: Work, form: Form, tell: Tell, contestants: list[Player]) -> dict[str, Any]:
    """Measures one work.

    Args:
        work: what is trained.
        form: how often.
        tell: told before each measure.
        contestants: who takes part.

    Returns:
        Plain values: the rounds, their medians, and the ratios.
    """
    for player in contestants:
        player.take(work)
    steps = _Steps(contestants, form, tell)
    cold = [steps.cold_round(number) for number in range(form.cold_rounds)]
    warm = [steps.warm_round(number, form.rounds, BARE, TURNS) for number in range(form.rounds)]
    warm += [steps.warm_round(number, form.peer_rounds, PEERS, 1) for number in range(form.peer_rounds)]
    peaks = {player.name: player.peak_megabytes() for player in contestants}
    watched = {player.name: player.watched_epoch() for player in contestants} if form.watch_memory else {}
    return {
        "what": work.describe(),
        "left_out": [name for name in PEERS if not available(name)],
        "warm_rounds": warm,
        "cold_rounds_seconds": cold,
        "images_per_second": _medians(warm),
        "first_epoch_seconds": _medians(cold),
        "peak_resident_mb": peaks,
        "with_helpers_mb": watched,
        **ratios(warm, cold),
    }


def ratios(warm: list[Round], cold: list[Round]) -> dict[str, Any]:
    """The medians of the rounds' ratios; None for what was not measured.

    The limit of a round is the faster layout, and the best peer the fastest peer, of that very round.
    """
    of_limit, of_moved, vs_peer, sooner = [], [], [], []
    best_peers = []
    for speeds in warm:
        limits = [speeds[name] for name in LIMITS if name in speeds]
        if limits:
            of_limit.append(speeds["ours"] / max(limits))
        if MOVED_LIMIT in speeds:
            of_moved.append(speeds["ours"] / speeds[MOVED_LIMIT])
        peers = {name: speeds[name] for name in PEERS if name in speeds}
        if peers:
            best_peers.append(max(peers, key=lambda name: peers[name]))
            vs_peer.append(speeds["ours"] / max(peers.values()))
    for seconds in cold:
        peers = {name: seconds[name] for name in PEERS if name in seconds}
        if peers:
            sooner.append(min(peers.values()) / seconds["ours"])
    each = {
        name: median(speeds["ours"] / speeds[name] for speeds in warm if name in speeds)
        for name in (*BARE, *PEERS)
        if any(name in speeds for speeds in warm)
    }
    return {
        "of_limit": median(of_limit) if of_limit else None,
        "of_limit_rounds": of_limit,
        "of_moved_limit": median(of_moved) if of_moved else None,
        "of_moved_limit_rounds": of_moved,
        "vs_best_peer": median(vs_peer) if vs_peer else None,
        "vs_best_peer_rounds": vs_peer,
        "best_peers": best_peers,
        "ours_vs_each": each,
        "first_epoch_vs_best_peer": median(sooner) if sooner else None,
    }


class _Steps:
    """Asks the contestants one after another, and says how far it is."""

    def __init__(self, contestants: list[Player], form: Form, tell: Tell) -> None:
        self._contestants = contestants
        self._form = form
        self._tell = tell
        limits, peers = (sum(player.name in names for player in contestants) for names in (BARE, PEERS))
        with_limits, with_peers = form.rounds * TURNS * (1 + limits), form.peer_rounds * (1 + peers)
        self._total = form.cold_rounds * (1 + peers) + limits + with_limits + with_peers
        self._done = 0

    def cold_round(self, number: int) -> Round:
        """Seconds of each contestant's first epoch, the opening of the data included; not of the limit."""
        seconds: Round = {}
        for player in self._contestants:
            if player.name in BARE and number:
                continue
            self._say(player, f"first epoch {number + 1} of {self._form.cold_rounds}")
            first = player.first()
            if player.name not in BARE:
                seconds[player.name] = first.seconds
        return seconds

    def warm_round(self, number: int, num_rounds: int, opponents: tuple[str, ...], turns: int) -> Round:
        """Images per second of ours and its opponents, who take turns, beginning with another one each round."""
        joining = [player for player in self._contestants if player.name in ("ours", *opponents)]
        first = number % len(joining)
        done: dict[str, Epoch] = {}
        for player in turns * (joining[first:] + joining[:first]):
            self._say(player, f"round {number + 1} of {num_rounds}")
            epoch = player.at_least(self._form.min_seconds / turns)
            done[player.name] = done[player.name] + epoch if player.name in done else epoch
        return {name: epoch.images / epoch.seconds for name, epoch in done.items()}

    def _say(self, player: Player, what: str) -> None:
        self._tell(self._done / self._total, f"{player.name}, {what}")
        self._done += 1


def _medians(rounds: list[Round]) -> Round:
    names = [name for name in ALL if any(name in one for one in rounds)]
    return {name: median(one[name] for one in rounds if name in one) for name in names}
