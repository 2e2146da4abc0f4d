"""What is asked and what answers mean: the part that the two clients share, without any IO."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Dict, Literal, Mapping, NamedTuple, NoReturn, Optional, Sequence, Tuple, Union
from urllib.parse import quote

from ._errors import AquiferError, BadRequest, Limited, NotPermitted, PermitEnded, Unavailable
from ._http import Answer, Broken, request

Pools = Union[str, Sequence[str]]
"""A pool; or several, of which the first that admits now counts, else the one likely to admit first."""
Priority = Literal["critical", "high", "normal", "low"]
"""How urgent a request is: before those who wait in the classes after it."""
Bind = Literal["none", "connection"]
"""`connection` ends the permit with the process too, not only when it is settled or its time is over."""
Outcome = Literal["ok", "throttled", "error"]
"""How a call ended."""
OnMissing = Literal["raise", "open", "local"]
"""What becomes of `acquire` when no daemon answers: see `Client`."""

WAIT_MAX = 24 * 3600.0
"""The longest that the daemon lets a request wait, in seconds."""
UNSAID_WAIT = 300.0
"""How long an answer may take where the pool's configuration says how long requests wait, which is not known here."""
CONNECTIONS_KEPT = 64
"""Idle connections that a client keeps; the daemon closes them after 5 minutes."""


class LimitState(NamedTuple):
    """One limit of a pool, after the decision."""

    name: str
    limit: int
    """The most that can be spent at once."""
    used: int
    """Spent now in the whole swarm; an estimate."""
    remaining: int
    """Left now in the whole swarm; an estimate."""
    held: int
    """What the daemon's node may spend now without asking anyone."""
    reset_in: float
    """Seconds until it would be full again if nobody spent."""


class Settlement(NamedTuple):
    """What settling a permit changed, by limit."""

    refunded: Mapping[str, int]
    """Units that came back."""
    debt: Mapping[str, int]
    """Units used beyond what was reserved; they are paid before the next admission."""
    ended: str
    """How the permit ended: `committed`, `released` or `closed`."""
    repeated: bool
    """Whether it had ended before: this is the answer that was given then."""


def default_socket() -> str:
    """Where the command line looks too: `$AQUIFER_SOCKET`, else `$XDG_RUNTIME_DIR/aquifer/aquifer.sock`, else
    `/run/aquifer/aquifer.sock`. Empty variables count as not set."""
    named = os.environ.get("AQUIFER_SOCKET")
    if named:
        return named
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/run", "aquifer/aquifer.sock")


class Ask(NamedTuple):
    """What a request for a permit says. Units of limits, seconds."""

    pool: Pools
    tokens: Optional[int] = None
    requests: Optional[int] = None
    cost: Optional[Mapping[str, int]] = None
    agent: Optional[str] = None
    priority: Optional[Priority] = None
    wait: Optional[float] = None
    key: Optional[str] = None
    bind: Optional[Bind] = None
    ttl: Optional[float] = None
    timeout: Optional[float] = None

    def bytes(self) -> bytes:
        """The request."""
        body: Dict[str, Any] = {"pool": self.pool if isinstance(self.pool, str) else list(self.pool)}
        for name in ("tokens", "requests", "agent", "priority", "key", "bind"):
            value = getattr(self, name)
            if value is not None:
                body[name] = value
        if self.cost:
            body["cost"] = dict(self.cost)
        if self.wait is not None:
            body["wait_ms"] = millis(min(self.wait, WAIT_MAX))
        if self.ttl is not None:
            body["ttl_ms"] = millis(self.ttl)
        return post("/v1/acquire", body)

    def patience(self, timeout: float) -> float:
        """How long the answer may take if the daemon may take `timeout` seconds beyond what the request waits."""
        if self.timeout is not None:
            return max(0.0, self.timeout)
        return timeout + (UNSAID_WAIT if self.wait is None else max(0.0, min(self.wait, WAIT_MAX)))


def millis(seconds: float) -> int:
    """Whole milliseconds, rounded up."""
    return math.ceil(seconds * 1_000)


def post(path: str, body: Mapping[str, Any]) -> bytes:
    """A command with its body; members that are `None` are left out."""
    told = {name: value for name, value in body.items() if value is not None}
    return request("POST", path, json.dumps(told, separators=(",", ":")).encode() if told else b"")


def get(path: str) -> bytes:
    """A question."""
    return request("GET", path)


def settle(permit: str, verb: str, used: Mapping[str, Any]) -> bytes:
    """`commit` or `release` of a permit."""
    return post(f"/v1/permits/{permit}/{verb}", used)


def used(tokens: Optional[int], requests: Optional[int], cost: Optional[Mapping[str, int]]) -> Dict[str, Any]:
    """What a call really used, as `commit` takes it."""
    return {"tokens": tokens, "requests": requests, "cost": dict(cost) if cost else None}


def explain_path(pool: str) -> str:
    """Where a pool is explained."""
    return "/v1/explain/" + quote(pool, safe="/-._~")


def observation(
    pool: str,
    outcome: Optional[Outcome],
    retry_after: Optional[float],
    limit: Optional[str],
    remaining: Optional[int],
    limit_value: Optional[int],
) -> bytes:
    """What a caller saw of the provider."""
    return post(
        "/v1/observe",
        {
            "pool": pool,
            "outcome": outcome,
            "retry_after_ms": None if retry_after is None else millis(retry_after),
            "limit": limit,
            "remaining": remaining,
            "limit_value": limit_value,
        },
    )


def admitted(answer: Answer) -> Dict[str, Any]:
    """The members of an admission; raises what the answer says otherwise."""
    if answer.status == 200:
        return members(answer)
    if answer.status == 429:
        said = members(answer)
        retry = said.get("retry_after_ms")
        raise Limited(
            str(said.get("pool")),
            str(said.get("reason")),
            said.get("limited_by"),
            None if retry is None else retry / 1_000,
            said.get("detail"),
        )
    raise_problem(answer)


def settled(answer: Answer) -> Settlement:
    """What settling came to."""
    if answer.status == 200:
        said = members(answer)
        return Settlement(said["refunded"], said["debt"], said["ended"], bool(said.get("repeated", False)))
    if answer.status in (404, 410):
        raise PermitEnded(str(members(answer).get("detail")))
    raise_problem(answer)


def listed(answer: Answer) -> Dict[str, Any]:
    """A listing."""
    if answer.status == 200:
        return members(answer)
    raise_problem(answer)


def done(answer: Answer) -> None:
    """That a command was carried out."""
    if answer.status != 204:
        raise_problem(answer)


def members(answer: Answer) -> Dict[str, Any]:
    """The body's members."""
    try:
        said = json.loads(answer.body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Broken(f"answered with HTTP status {answer.status} and no JSON object")
    return said


def raise_problem(answer: Answer) -> NoReturn:
    """Raises the problem that an answer tells of."""
    said = members(answer)
    detail = str(said.get("detail") or said.get("title") or answer.status)
    if answer.status in (401, 403):
        raise NotPermitted(detail)
    if answer.status >= 500:
        raise Unavailable(detail)
    raise BadRequest(answer.status, detail, said.get("field"))


def limit_states(said: Mapping[str, Any]) -> Tuple[LimitState, ...]:
    """The limits of an admission."""
    return tuple(
        LimitState(
            one["name"], one["limit"], one["used"], one["remaining"], one["held"], one["reset_in_ms"] / 1_000
        )
        for one in said.get("limits", ())
    )


def unreachable(path: str, error: OSError) -> AquiferError:
    """Nobody could be asked."""
    if isinstance(error, PermissionError):
        return NotPermitted(f"this user may not use {path}; ask the daemon's owner, or name another socket ({error})")
    return Unavailable(f"no daemon answers at {path}; start one with `aquifer up` ({error})")
