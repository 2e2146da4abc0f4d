"""The client for asyncio."""

from __future__ import annotations

import asyncio
import errno
from types import TracebackType
from typing import Any, Dict, Generator, List, Mapping, Optional, Tuple, Type
from weakref import WeakKeyDictionary

from . import _calls as calls
from ._calls import Ask, Bind, OnMissing, Outcome, Pools, Priority, Settlement
from ._errors import AquiferError, TimedOut, Unavailable
from ._http import Answer, Broken, Lost, Parser
from ._local import Taken
from ._shared import ClientBase, PermitBase, log


class AsyncClient(ClientBase):
    """`Client` for asyncio, for any number of tasks, and of event loops one after the other or side by side: connections
    belong to the loop that made them. Takes what `Client` takes. Cancelling a request hangs up, and it takes nothing."""

    def __init__(
        self,
        socket: Optional[str] = None,
        *,
        agent: Optional[str] = None,
        timeout: float = 10.0,
        on_missing: OnMissing = "raise",
        local_part: float = 1.0,
    ) -> None:
        super().__init__(
            socket, agent=agent, timeout=timeout, on_missing=on_missing, local_part=local_part
        )
        self._idle: WeakKeyDictionary[asyncio.AbstractEventLoop, List[_Connection]] = WeakKeyDictionary()

    def acquire(
        self,
        pool: Pools,
        *,
        tokens: Optional[int] = None,
        requests: Optional[int] = None,
        cost: Optional[Mapping[str, int]] = None,
        agent: Optional[str] = None,
        priority: Optional[Priority] = None,
        wait: Optional[float] = None,
        key: Optional[str] = None,
        bind: Optional[Bind] = None,
        ttl: Optional[float] = None,
        timeout: Optional[float] = None,
    ) -> Asking:
        """As `Client.acquire`; to be awaited, or entered with `async with`."""
        ask = Ask(pool, tokens, requests, cost, agent or self.agent, priority, wait, key, bind, ttl, timeout)
        return Asking(self, ask)

    async def status(self) -> Dict[str, Any]:
        """As `Client.status`."""
        return await self._get("/v1/status")

    async def explain(self, pool: str) -> Dict[str, Any]:
        """As `Client.explain`."""
        return await self._get(calls.explain_path(pool))

    async def observe(
        self,
        pool: str,
        outcome: Optional[Outcome] = None,
        *,
        retry_after: Optional[float] = None,
        limit: Optional[str] = None,
        remaining: Optional[int] = None,
        limit_value: Optional[int] = None,
    ) -> None:
        """As `Client.observe`."""
        request = calls.observation(pool, outcome, retry_after, limit, remaining, limit_value)
        answer, _ = await self._exchange(request, self.timeout, False)
        self._meaning(calls.done, answer)

    async def close(self) -> None:
        """Closes the idle connections of this event loop. The client can still be used."""
        for connection in self._idle.pop(asyncio.get_running_loop(), []):
            connection.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def _acquire(self, ask: Ask) -> AsyncPermit:
        patience, bound = ask.patience(self.timeout), ask.bind == "connection"
        try:
            answer, connection = await self._exchange(ask.bytes(), patience, False, bound)
            said = self._meaning(calls.admitted, answer)
        except Unavailable as missing:
            said, taken = self._without_daemon(ask, missing)
            return AsyncPermit(self, said, None, taken)
        if self._shares_are_due():
            try:
                self._learn(await self._get("/v1/limits"))
            except AquiferError as error:
                log.debug("the node's shares are not known: %s", error)
            except BaseException:
                # Cancelled: nobody will hear of the permit.
                if connection is not None:
                    connection.close()
                raise
        return AsyncPermit(self, said, connection)

    async def _get(self, path: str) -> Dict[str, Any]:
        answer, _ = await self._exchange(calls.get(path), self.timeout, True)
        return self._meaning(calls.listed, answer)

    async def _settle(
        self, permit: str, verb: str, used: Mapping[str, Any], bound: Optional[_Connection]
    ) -> Settlement:
        # Settling again changes nothing, so that it may be asked twice.
        request = calls.settle(permit, verb, used)
        answer, _ = await self._exchange(request, self.timeout, True, connection=bound)
        return self._meaning(calls.settled, answer)

    async def _exchange(
        self,
        request: bytes,
        patience: float,
        repeatable: bool,
        keep: bool = False,
        connection: Optional[_Connection] = None,
    ) -> Tuple[Answer, Optional[_Connection]]:
        """As `Client._exchange`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        idle = self._idle.setdefault(loop, [])
        while True:
            if connection is None:
                connection = await self._take(idle)
            is_new, connection.is_new = connection.is_new, False
            try:
                answer = await connection.exchange(request, deadline)
            except Lost as lost:
                connection.close()
                connection = None
                # As for threads: a kept connection that was closed meanwhile.
                if is_new or not (lost.unread or repeatable):
                    raise Unavailable(f"the daemon at {self.socket} {lost}", not lost.unread) from None
                continue
            except Broken as broken:
                connection.close()
                raise Unavailable(f"the daemon at {self.socket} {broken}") from None
            except asyncio.TimeoutError:
                connection.close()
                message = f"the daemon at {self.socket} did not answer within {patience:g} s"
                raise TimedOut(message, True) from None
            except BaseException:
                # Cancelled: hanging up tells the daemon, and nobody takes the answer for the next request's.
                connection.close()
                raise
            if keep and answer.status == 200:
                return answer, connection
            if answer.reusable and len(idle) < calls.CONNECTIONS_KEPT:
                idle.append(connection)
            else:
                connection.close()
            return answer, None

    async def _take(self, idle: List[_Connection]) -> _Connection:
        while idle:
            connection = idle.pop()
            if not connection.is_closed:
                return connection
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(lambda: _Connection(loop), self.socket)
        except OSError as error:
            raise calls.unreachable(self.socket, error) from None
        return connection


class Asking:
    """A request that is made when it is awaited or entered."""

    def __init__(self, client: AsyncClient, ask: Ask) -> None:
        self._client = client
        self._ask = ask
        self._permit: Optional[AsyncPermit] = None

    def __await__(self) -> Generator[Any, None, AsyncPermit]:
        return self._client._acquire(self._ask).__await__()

    async def __aenter__(self) -> AsyncPermit:
        self._permit = await self._client._acquire(self._ask)
        return self._permit

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            await permit.__aexit__(kind, error, trace)


class AsyncPermit(PermitBase):
    """`Permit` for asyncio: what settles it is awaited."""

    def __init__(
        self,
        client: AsyncClient,
        said: Mapping[str, Any],
        connection: Optional[_Connection],
        taken: Optional[Taken] = None,
    ) -> None:
        super().__init__(said, taken)
        self._client = client
        self._connection = connection

    async def commit(
        self,
        *,
        tokens: Optional[int] = None,
        requests: Optional[int] = None,
        cost: Optional[Mapping[str, int]] = None,
    ) -> Settlement:
        """As `Permit.commit`."""
        return await self._settle("commit", self._note_used(tokens, requests, cost))

    async def release(self) -> Settlement:
        """As `Permit.release`."""
        return await self._settle("release", {})

    async def __aenter__(self) -> AsyncPermit:
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._settled is not None:
            return
        try:
            if error is not None and self._used is None:
                await self.release()
            else:
                await self.commit()
        except AquiferError as failure:
            self._not_settled(failure)

    async def _settle(self, verb: str, used: Mapping[str, Any]) -> Settlement:
        if self._settled is not None:
            return self._settled._replace(repeated=True)
        permit, connection = self.id, self._connection
        if permit is None:
            self._settled = self._client._settle_locally(self._taken, verb, used)
        else:
            self._connection = None
            self._settled = await self._client._settle(permit, verb, used, connection)
        return self._settled


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time. A protocol, since streams take twice the time of an answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_new = True
        self.is_closed = False
        self._loop = loop
        self._transport: Optional[asyncio.Transport] = None
        self._waiter: Optional[asyncio.Future[Answer]] = None
        self._parser = Parser()

    async def exchange(self, request: bytes, deadline: float) -> Answer:
        """Raises `Lost`, `Broken` or `asyncio.TimeoutError`."""
        transport = self._transport
        if self.is_closed or transport is None or transport.is_closing():
            raise Lost("hung up", unread=True)
        self._parser = Parser()
        self._waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._fail, asyncio.TimeoutError())
        try:
            transport.write(request)
            return await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def close(self) -> None:
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            # Nobody asked.
            self.close()
            return
        try:
            answer = self._parser.feed(data)
        except Broken as broken:
            self._fail(broken)
            return
        if answer is not None:
            self._waiter.set_result(answer)

    def connection_lost(self, error: Optional[Exception]) -> None:
        self.is_closed = True
        if isinstance(error, OSError):
            # See the connection for threads: neither means that a whole request was read.
            unread = error.errno in (errno.EPIPE, errno.ECONNRESET) and not self._parser.started
            self._fail(Lost(f"hung up ({error})", unread))
        else:
            self._fail(Lost("hung up before it had answered", unread=False))
