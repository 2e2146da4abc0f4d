"""The decorator."""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from typing import Any, Callable, Mapping, Optional, TypeVar, Union

from ._aio import AsyncClient, AsyncPermit
from ._calls import Pools, Priority
from ._client import Client, Permit

Function = TypeVar("Function", bound=Callable[..., Any])
Amount = Union[int, Callable[..., int], None]
"""A number; or what makes it of the function's own arguments."""

_current: ContextVar[Union[Permit, AsyncPermit, None]] = ContextVar("aquifer_permit", default=None)
_clients: dict[type, Any] = {}


def current_permit() -> Union[Permit, AsyncPermit, None]:
    """The permit under which the innermost `limited` function runs, to say what it `used`; `None` outside of one."""
    return _current.get()


def limited(
    pool: Pools,
    *,
    tokens: Amount = None,
    requests: Amount = None,
    cost: Optional[Mapping[str, int]] = None,
    agent: Optional[str] = None,
    priority: Optional[Priority] = None,
    wait: Optional[float] = None,
    key: Optional[str] = None,
    timeout: Optional[float] = None,
    client: Union[Client, AsyncClient, None] = None,
) -> Callable[[Function], Function]:
    """Asks for a permit before each call of a function, plain or `async`, and settles it afterwards: as used if the
    function returns, as `current_permit().used(…)` said in it; as not used if it raises and said nothing.

        @limited("search-api", wait=5)
        def search(words: str) -> str: ...

        @limited("anthropic/sonnet", tokens=lambda prompt: len(prompt) // 3 + 800)
        async def ask(prompt: str) -> str: ...

    `client` is an `AsyncClient` for async functions and a `Client` for others; without it, one is shared by all.
    """

    def decorate(function: Function) -> Function:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator, which would run after its permit was settled")

        def asked(args: Any, kwargs: Any) -> Any:
            def amount(said: Amount) -> Optional[int]:
                return said(*args, **kwargs) if callable(said) else said

            return {
                "tokens": amount(tokens),
                "requests": amount(requests),
                "cost": cost,
                "agent": agent,
                "priority": priority,
                "wait": wait,
                "key": key,
                "timeout": timeout,
            }

        if inspect.iscoroutinefunction(function):
            _check(function, client, AsyncClient)

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                asking: AsyncClient = _client(client, AsyncClient)
                async with asking.acquire(pool, **asked(args, kwargs)) as permit:
                    token = _current.set(permit)
                    try:
                        return await function(*args, **kwargs)
                    finally:
                        _current.reset(token)

            return run_async  # type: ignore[return-value]

        _check(function, client, Client)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            asking: Client = _client(client, Client)
            with asking.acquire(pool, **asked(args, kwargs)) as permit:
                token = _current.set(permit)
                try:
                    return function(*args, **kwargs)
                finally:
                    _current.reset(token)

        return run  # type: ignore[return-value]

    return decorate


def _check(function: Callable[..., Any], client: object, kind: type) -> None:
    if client is not None and not isinstance(client, kind):
        raise TypeError(f"{function.__qualname__} needs a client of the type {kind.__name__}")


def _client(client: Any, kind: type) -> Any:
    # Two threads may both make the first one; one of them is then dropped after use.
    return client or _clients.get(kind) or _clients.setdefault(kind, kind())
