"""What the two clients and their permits have in common: all but the IO."""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, TypeVar

from . import _calls as calls
from ._calls import Ask, LimitState, OnMissing, Settlement
from ._errors import AquiferError, Unavailable
from ._http import Answer, Broken
from ._local import LocalShares, Taken

log = logging.getLogger("aquifer")

Meaning = TypeVar("Meaning")


class ClientBase:
    """Where the daemon is, and what becomes of requests without one."""

    def __init__(
        self,
        socket: Optional[str] = None,
        *,
        agent: Optional[str] = None,
        timeout: float = 10.0,
        on_missing: OnMissing = "raise",
        local_part: float = 1.0,
    ) -> None:
        if on_missing not in ("raise", "open", "local"):
            raise ValueError(f"on_missing is {on_missing!r}, must be 'raise', 'open' or 'local'")
        self.socket = socket if socket is not None else calls.default_socket()
        """Where the daemon is looked for."""
        self.agent = agent
        """Who asks, unless a request says otherwise."""
        self.timeout = timeout
        """Seconds that the daemon may take for an answer, beyond those for which a request waits."""
        self._on_missing = on_missing
        self._local = LocalShares(local_part) if on_missing == "local" else None

    def _meaning(self, of: Callable[[Answer], Meaning], answer: Answer) -> Meaning:
        try:
            return of(answer)
        except Broken as broken:
            raise Unavailable(f"the daemon at {self.socket} {broken}") from None

    def _without_daemon(self, ask: Ask, missing: Unavailable) -> Tuple[Dict[str, Any], Optional[Taken]]:
        """What a permit says that no daemon gave, and what it took here. Raises `missing` unless there is such a thing."""
        if self._on_missing == "raise":
            raise missing
        name, taken = ask.pool if isinstance(ask.pool, str) else ask.pool[0], None
        if self._local is not None:
            name, taken = self._local.acquire(ask, time.monotonic(), missing)
        log.debug("%s; %s is admitted without it", missing, name)
        return {"pool": name, "guarantee": self._on_missing}, taken

    def _shares_are_due(self) -> bool:
        return self._local is not None and self._local.is_due(time.monotonic())

    def _learn(self, limits: Mapping[str, Any]) -> None:
        if self._local is not None:
            self._local.learn(limits, time.monotonic())

    def _settle_locally(self, taken: Optional[Taken], verb: str, used: Mapping[str, Any]) -> Settlement:
        if self._local is not None and taken is not None:
            self._local.settle(taken, used if verb == "commit" else None)
        return Settlement({}, {}, "committed" if verb == "commit" else "released", False)


class PermitBase:
    """What an admission says, and what is said of the call."""

    def __init__(self, said: Mapping[str, Any], taken: Optional[Taken] = None) -> None:
        self._said = said
        self._taken = taken
        self._used: Optional[Dict[str, Any]] = None
        self._settled: Optional[Settlement] = None

    @property
    def id(self) -> Optional[str]:
        """Names the permit to the daemon; `None` if no daemon gave it."""
        return self._said.get("permit")

    @property
    def pool(self) -> str:
        """The pool that admitted it."""
        return str(self._said["pool"])

    @property
    def waited(self) -> float:
        """Seconds that the request waited."""
        return float(self._said.get("waited_ms", 0)) / 1_000

    @property
    def expires_in(self) -> Optional[float]:
        """For how many seconds it was given, unless it is settled before; `None` if no daemon gave it."""
        expires = self._said.get("expires_in_ms")
        return None if expires is None else expires / 1_000

    @property
    def guarantee(self) -> str:
        """The promise it was given under: the swarm's policy; or `open` or `local`, where no daemon answered."""
        return str(self._said["guarantee"])

    @property
    def limits(self) -> Tuple[LimitState, ...]:
        """The pool's limits after the decision."""
        return calls.limit_states(self._said)

    def used(
        self,
        *,
        tokens: Optional[int] = None,
        requests: Optional[int] = None,
        cost: Optional[Mapping[str, int]] = None,
    ) -> None:
        """Says what the call really used, for the end of the `with` block. What is not named was used as reserved. Saying it
        again replaces what was said."""
        self._used = calls.used(tokens, requests, cost)

    def _note_used(
        self, tokens: Optional[int], requests: Optional[int], cost: Optional[Mapping[str, int]]
    ) -> Mapping[str, Any]:
        if tokens is not None or requests is not None or cost is not None:
            self.used(tokens=tokens, requests=requests, cost=cost)
        return self._used or {}

    def _not_settled(self, failure: AquiferError) -> None:
        log.warning("a permit of %s was not settled and counts as used: %s", self.pool, failure)
