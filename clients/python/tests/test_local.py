"""The limiter that stands in while no daemon answers, on a clock of its own."""

import random
import unittest
from typing import Any, Dict, List, Optional, Tuple

from aquifer import Limited, Unavailable
from aquifer._calls import Ask
from aquifer._local import SPENDS_MAX, LocalShares, Taken

GONE = Unavailable("gone")


def limit(kind: str, **said: Any) -> Dict[str, Any]:
    listing = {
        "pool": "p", "name": "l", "kind": kind, "unit": "requests", "amount": 60, "per_ms": 60_000, "limit": 10,
        "held": 4, "held_share": 0.5,
    }  # fmt: skip
    return {**listing, **said}


def shares(*limits: Dict[str, Any], part: float = 1.0) -> LocalShares:
    local = LocalShares(part)
    local.learn({"limits": limits}, 0.0)
    return local


def take(local: LocalShares, now: float, **ask: Any) -> Tuple[bool, Optional[float]]:
    try:
        local.acquire(Ask("p", **ask), now, GONE)
        return True, None
    except Limited as refusal:
        return False, refusal.retry_after


class Local(unittest.TestCase):
    def test_rates_come_back_at_the_shares_rate(self) -> None:
        # Half of 60 a minute, at most half of 10 at once, of which 4 are there.
        local = shares(limit("rate"))
        self.assertEqual([take(local, 0.0)[0] for _ in range(5)], [True] * 4 + [False])
        self.assertEqual(take(local, 1.0), (False, 1.0))
        self.assertEqual(take(local, 2.0), (True, None))
        self.assertEqual([take(local, 100.0)[0] for _ in range(6)], [True] * 5 + [False])
        self.assertEqual(take(local, 100.0, requests=6), (False, None))
        half = shares(limit("rate"), part=0.5)
        self.assertEqual([take(half, 0.0)[0] for _ in range(3)], [True, True, False])

    def test_no_share_is_no_room(self) -> None:
        self.assertEqual(take(shares(limit("rate", held=0, held_share=0.0)), 9.0), (False, None))

    def test_windows_never_hold_more_than_their_share(self) -> None:
        # Seven of the share's ten were spent at some time before.
        local = shares(limit("window", amount=20, limit=20, held=3, held_share=0.5, per_ms=1_000))
        chance, spent = random.Random(7), [(0.0, 7)]
        now = 0.0
        for _ in range(4_000):
            now += chance.random() * 0.05
            units = chance.randint(1, 3)
            if take(local, now, requests=units)[0]:
                spent.append((now, units))
            self.assertLessEqual(sum(units for at, units in spent if at > now - 1.0), 10)
        self.assertGreater(sum(units for _, units in spent), 8 * now)

    def test_windows_keep_a_bounded_memory(self) -> None:
        local = shares(limit("window", amount=10**6, limit=10**6, held=10**6, held_share=1.0))
        for _ in range(3 * SPENDS_MAX):
            self.assertTrue(take(local, 1.0)[0])
        (kept,) = local._pools["p"]
        self.assertEqual((len(kept.spends), sum(units for _, units in kept.spends)), (SPENDS_MAX, 3 * SPENDS_MAX))

    def test_slots_come_back_when_permits_end_and_calendars_not_at_all(self) -> None:
        local = shares(limit("concurrency", amount=4, limit=4, held=2, held_share=0.5), limit("calendar", name="day"))
        taken: List[Taken] = [local.acquire(Ask("p"), 0.0, GONE)[1] for _ in range(2)]
        self.assertEqual(take(local, 50.0), (False, 1.0))
        local.settle(taken[0], {})
        self.assertTrue(take(local, 50.0)[0])
        local.settle(taken[1], None)
        self.assertTrue(take(local, 90_000.0)[0])
        self.assertEqual(take(local, 90_000.0)[0], False)

    def test_costs_are_found_as_the_daemon_finds_them(self) -> None:
        tokens = {"unit": "tokens", "held": 100, "limit": 100, "held_share": 1.0, "amount": 1}
        local = shares(limit("rate", name="rpm"), limit("rate", name="itpm", **{**tokens, "unit": "input_tokens"}), limit("rate", name="tpm", **tokens))
        _, taken = local.acquire(Ask("p", tokens=60, cost={"itpm": 70}), 0.0, GONE)
        self.assertEqual([units for _, units in taken.limits], [1.0, 70.0, 60.0])
        # All or none: the second has no room.
        self.assertFalse(take(local, 0.0, tokens=40, cost={"input_tokens": 31})[0])
        self.assertTrue(take(local, 0.0, tokens=40)[0])
        local.settle(taken, {"tokens": 10, "cost": None})
        self.assertTrue(take(local, 0.0, tokens=50)[0])
        self.assertFalse(take(local, 0.0, tokens=1)[0])

    def test_what_is_not_known_has_no_share(self) -> None:
        local = shares(limit("rate"))
        for ask in (Ask("q"), Ask("p", key="k")):
            with self.assertRaises(Unavailable) as caught:
                local.acquire(ask, 0.0, GONE)
            self.assertIs(caught.exception, GONE)
        self.assertEqual(local.acquire(Ask(["q", "p"]), 0.0, GONE)[0], "p")

    def test_shares_are_asked_for_now_and_then(self) -> None:
        local = LocalShares(1.0)
        self.assertEqual([local.is_due(now) for now in (0.0, 0.0, 4.9, 5.0, 5.1)], [True, False, False, True, False])
        for part in (0.0, 1.1):
            self.assertRaises(ValueError, LocalShares, part)
