"""Parts a and b: images per second of ours, of the limit and of the peers, round by round, one after another.

Rounds are interleaved, so that a machine that slows down slows everyone down. Every ratio is taken within a round; what
is reported is the median of the rounds' ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.arena import ALL, LIMITS, PEERS, Epoch, Player, available, players
from benchmarks.forms import Form, peers_join
from benchmarks.works import Work

Round = dict[str, float]
"""Contestant -> images per second in one round."""

Tell = Callable[[float, str], None]
"""(share of the work that is done, what comes next)."""


def compare(work: Work, form: Form, tell: Tell, names: tuple[str, ...] = ALL) -> dict[str, Any]:
    """Measures one work.

    Args:
        work: what is trained.
        form: how often.
        tell: told before each measure.
        names: who takes part; peers whose package is missing are left out, and named.

    Returns:
        Plain values: the rounds, their medians, and the ratios.
    """
    present = [name for name in names if available(name)]
    with players(present, work) as contestants:
        steps = _Steps(contestants, form, tell)
        cold = [steps.cold_round(number) for number in range(form.cold_rounds)]
        warm = [steps.warm_round(number) for number in range(form.rounds)]
        peaks = {player.name: player.peak_megabytes() for player in contestants}
        watched = {player.name: player.watched_epoch() for player in contestants} if form.watch_memory else {}
    return {
        "what": work.describe(),
        "left_out": sorted(set(names) - set(present)),
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
    of_limit, vs_peer, sooner = [], [], []
    best_peers = []
    for speeds in warm:
        limits = [speeds[name] for name in LIMITS if name in speeds]
        if limits:
            of_limit.append(speeds["ours"] / max(limits))
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
        for name in (*LIMITS, *PEERS)
        if any(name in speeds for speeds in warm)
    }
    return {
        "of_limit": median(of_limit) if of_limit else None,
        "of_limit_rounds": of_limit,
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
        joined = sum(peers_join(form, number) for number in range(form.rounds))
        num_peers = sum(player.name in PEERS for player in contestants)
        self._total = (
            form.cold_rounds * len(contestants) + form.rounds * (len(contestants) - num_peers) + joined * num_peers
        )
        self._done = 0

    def cold_round(self, number: int) -> Round:
        """Seconds of each contestant's first epoch, the opening of the data included; not of the limit."""
        seconds: Round = {}
        for player in self._contestants:
            if player.name in LIMITS and number:
                continue
            self._say(player, f"first epoch {number + 1} of {self._form.cold_rounds}")
            first = player.first()
            if player.name not in LIMITS:
                seconds[player.name] = first.seconds
        return seconds

    def warm_round(self, number: int) -> Round:
        """Images per second of each contestant that has its turn, beginning with another one each round."""
        joining = [p for p in self._contestants if p.name not in PEERS or peers_join(self._form, number)]
        turn = number % len(joining)
        speeds: Round = {}
        for player in joining[turn:] + joining[:turn]:
            self._say(player, f"round {number + 1} of {self._form.rounds}")
            speeds[player.name] = _speed(player.at_least(self._form.min_seconds))
        return speeds

    def _say(self, player: Player, what: str) -> None:
        self._tell(self._done / self._total, f"{player.name}, {what}")
        self._done += 1


def _speed(epoch: Epoch) -> float:
    return epoch.images / epoch.seconds


def _medians(rounds: list[Round]) -> Round:
    names = [name for name in ALL if any(name in one for one in rounds)]
    return {name: median(one[name] for one in rounds if name in one) for name in names}
