"""Asks an Aquifer daemon for a permit before each call to a limited API.

    import aquifer

    client = aquifer.Client()                      # finds the socket as the command line does
    with client.acquire("anthropic/sonnet", tokens=1200, wait=30) as permit:
        answer = call_the_provider()
        permit.used(tokens=answer.tokens)          # what was reserved beyond it comes back

`Client` is for threads, `AsyncClient` for asyncio, `limited` a decorator for functions of both kinds. Nothing but the
standard library is needed.
"""

from ._aio import AsyncClient, AsyncPermit
from ._calls import Bind, LimitState, OnMissing, Outcome, Pools, Priority, Settlement, default_socket
from ._client import Client, Permit
from ._errors import AquiferError, BadRequest, Limited, NotPermitted, PermitEnded, TimedOut, Unavailable
from ._limited import current_permit, limited

__all__ = [
    "AquiferError",
    "AsyncClient",
    "AsyncPermit",
    "BadRequest",
    "Bind",
    "Client",
    "LimitState",
    "Limited",
    "NotPermitted",
    "OnMissing",
    "Outcome",
    "Permit",
    "PermitEnded",
    "Pools",
    "Priority",
    "Settlement",
    "TimedOut",
    "Unavailable",
    "current_permit",
    "default_socket",
    "limited",
]
