"""A small limiter that stands in while no daemon answers: it runs on the share that the daemon's node held last.

While the daemon is away its node's share stays reserved for as long as the swarm's policy says, so that spending it here
harms nobody; but each process has a limiter of its own, and several of one machine would spend the share several times.
That is what `part` is for: the part of the share that this process may use.

Rates come back at the share's rate, up to the share's burst. Of a window, what was spent within its length is kept
exactly, up to `SPENDS_MAX` entries. Of a calendar limit nothing comes back. A concurrency limit counts this process's own
permits. Keyed pools have no share that could be known here.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ._calls import Ask
from ._errors import Limited, Unavailable

LEARN_EVERY = 5.0
"""How often the node is asked for its shares, in seconds, as long as it answers."""
SPENDS_MAX = 256
"""Entries of a window; beyond it two neighbours are counted as the later one."""
ASK_AGAIN = 1.0
"""When to ask again for what does not come back by itself."""


class _Limit:
    """What this process may spend of one limit while the daemon is away."""

    def __init__(self, listing: Mapping[str, Any], part: float, now: float) -> None:
        self.name = str(listing["name"])
        self.unit = str(listing["unit"])
        self.kind = str(listing["kind"])
        share = float(listing["held_share"]) * part
        self.per = max(float(listing["per_ms"]) / 1_000, 0.001)
        self.rate = float(listing["amount"]) * share / self.per if self.kind == "rate" else 0.0
        self.capacity = float(listing["limit"]) * share
        self.level = min(float(listing["held"]) * part, self.capacity)
        self.at = now
        # Of a window, what the daemon had admitted lately counts as spent now.
        self.spends: Deque[Tuple[float, float]] = deque([(now, self.capacity - self.level)])

    def missing(self, units: float, now: float) -> Optional[float]:
        """Seconds until `units` are there; `None` if they never are."""
        self._refill(now)
        if units <= self.level:
            return 0.0
        if units > self.capacity:
            return None
        if self.kind == "rate":
            return (units - self.level) / self.rate
        if self.kind == "window":
            there = self.level
            for spent_at, spent in self.spends:
                there += spent
                if there >= units:
                    return spent_at + self.per - now
        return ASK_AGAIN if self.kind == "concurrency" else None

    def spend(self, units: float, now: float) -> None:
        self.level -= units
        if self.kind == "window":
            if len(self.spends) >= SPENDS_MAX:
                _, earlier = self.spends.popleft()
                at, later = self.spends.popleft()
                self.spends.appendleft((at, earlier + later))
            self.spends.append((now, units))

    def settle(self, reserved: float, used: float) -> None:
        if self.kind == "concurrency":
            self.level = min(self.capacity, self.level + reserved)
        elif self.kind == "rate":
            self.level = min(self.capacity, self.level + reserved - used)

    def _refill(self, now: float) -> None:
        if self.kind == "rate":
            self.level = min(self.capacity, self.level + max(0.0, now - self.at) * self.rate)
            self.at = now
        while self.kind == "window" and self.spends and self.spends[0][0] + self.per <= now:
            self.level += self.spends.popleft()[1]


class Taken(NamedTuple):
    """What a local permit reserved."""

    limits: List[Tuple[_Limit, float]]
    ask: Ask


class LocalShares:
    """The shares that the node held last. For any thread."""

    def __init__(self, part: float) -> None:
        if not 0.0 < part <= 1.0:
            raise ValueError(f"local_part is {part}, must be above 0 and at most 1")
        self._part = part
        self._lock = threading.Lock()
        self._pools: Dict[str, List[_Limit]] = {}
        self._learned: Optional[float] = None

    def is_due(self, now: float) -> bool:
        """Whether the node should be asked for its shares. Says so once, so that one caller asks."""
        with self._lock:
            due = self._learned is None or now - self._learned >= LEARN_EVERY
            if due:
                self._learned = now
            return due

    def learn(self, listing: Mapping[str, Any], now: float) -> None:
        """Notes what `GET /v1/limits` answered."""
        pools: Dict[str, List[_Limit]] = {}
        for limit in listing.get("limits", ()):
            pools.setdefault(str(limit["pool"]), []).append(_Limit(limit, self._part, now))
        with self._lock:
            self._pools = pools

    def acquire(self, ask: Ask, now: float, missing: Unavailable) -> Tuple[str, Taken]:
        """Takes what is asked for, of the first pool that has it: its name, and what was taken.

        Raises `Limited`; or `missing`, why there is no daemon, if nothing is known of the pool.
        """
        names = [ask.pool] if isinstance(ask.pool, str) else list(ask.pool)
        refusal: Optional[Limited] = None
        with self._lock:
            for name in names:
                limits = self._pools.get(name)
                if limits is None or ask.key is not None:
                    continue
                costs = [(limit, float(_units(ask, limit))) for limit in limits]
                short = [(limit, limit.missing(units, now)) for limit, units in costs if units > 0]
                short = [(limit, wait) for limit, wait in short if wait != 0.0]
                if not short:
                    for limit, units in costs:
                        limit.spend(units, now)
                    return name, Taken(costs, ask)
                if refusal is None:
                    refusal = _refused(name, short)
        raise refusal or missing

    def settle(self, taken: Taken, used: Optional[Mapping[str, Any]]) -> None:
        """A call ended: it used this, or nothing. What is not named was used as reserved."""
        with self._lock:
            for limit, reserved in taken.limits:
                spent = 0.0
                if used is not None:
                    said = _units(Ask(taken.ask.pool, **{name: used.get(name) for name in ("tokens", "requests", "cost")}), limit)
                    named = (used.get("cost") or {}).keys() | {
                        name for name in ("tokens", "requests") if used.get(name) is not None
                    }
                    spent = float(said) if limit.unit in named or limit.name in named else reserved
                limit.settle(reserved, spent)


def _refused(pool: str, short: List[Tuple[_Limit, Optional[float]]]) -> Limited:
    limit, wait = max(short, key=lambda one: float("inf") if one[1] is None else one[1])
    detail = f"no daemon answers, and the last known share of {limit.name} has no room"
    return Limited(pool, "local", limit.name, wait, detail)


def _units(ask: Ask, limit: _Limit) -> int:
    """What a request costs of a limit: by the limit's name, by the unit's, or by what the unit is."""
    cost = ask.cost or {}
    for name in (limit.name, limit.unit):
        if name in cost:
            return cost[name]
    if limit.unit == "requests":
        return 1 if ask.requests is None else ask.requests
    return (ask.tokens or 0) if limit.unit == "tokens" else 0
