"""The client for threads."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections import deque
from types import TracebackType
from typing import Any, Deque, Dict, Mapping, Optional, Tuple, Type

from . import _calls as calls
from ._calls import Ask, Bind, OnMissing, Outcome, Pools, Priority, Settlement
from ._errors import AquiferError, TimedOut, Unavailable
from ._http import Answer, Broken, Lost, Parser
from ._local import Taken
from ._shared import ClientBase, PermitBase, log


class Client(ClientBase):
    """Asks the daemon at a Unix socket. For any number of threads: each request has a connection to itself, which is kept
    for those after it.

    `socket`: the daemon's, by default `default_socket()`.
    `agent`: who asks, unless a request says otherwise.
    `timeout`: seconds that the daemon may take for an answer, beyond those for which a request waits.
    `on_missing`: what becomes of `acquire` when no daemon answers. `"raise"` raises `Unavailable`; `"open"` admits
    everything; `"local"` runs on the share of each limit that the daemon's node held when it last answered, and raises
    `Limited` beyond it, or `Unavailable` if it never answered. It never waits for room.
    `local_part`: the part of that share that this process may use; where n processes of a machine share a daemon, 1/n.
    """

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
        self._idle: Deque[_Connection] = deque()
        self._process = os.getpid()

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
    ) -> Permit:
        """Asks for a permit, and waits for it for up to `wait` seconds; 0 does not wait, and `None` does as the pool's
        configuration says. `requests` is one unless said; `cost` names single limits, or other units. `ttl`: seconds after
        which a permit that was not settled counts as used (120 unless said). `timeout`: seconds after which this gives up,
        whatever it waits for.

        Raises `Limited` if it is refused, `BadRequest`, `NotPermitted` or `Unavailable`. A request that may have been
        admitted by a daemon that then hung up is not asked again: `Unavailable.maybe_admitted` says so.
        """
        ask = Ask(pool, tokens, requests, cost, agent or self.agent, priority, wait, key, bind, ttl, timeout)
        try:
            answer, connection = self._exchange(ask.bytes(), ask.patience(self.timeout), False, bind == "connection")
            said = self._meaning(calls.admitted, answer)
        except Unavailable as missing:
            said, taken = self._without_daemon(ask, missing)
            return Permit(self, said, None, taken)
        if self._shares_are_due():
            try:
                self._learn(self._get("/v1/limits"))
            except AquiferError as error:
                log.debug("the node's shares are not known: %s", error)
        return Permit(self, said, connection)

    def status(self) -> Dict[str, Any]:
        """The node, its pools and what deserves a look, as `GET /v1/status` answers."""
        return self._get("/v1/status")

    def explain(self, pool: str) -> Dict[str, Any]:
        """What would become of a request to this pool now, and why; `words` has it in sentences."""
        return self._get(calls.explain_path(pool))

    def observe(
        self,
        pool: str,
        outcome: Optional[Outcome] = None,
        *,
        retry_after: Optional[float] = None,
        limit: Optional[str] = None,
        remaining: Optional[int] = None,
        limit_value: Optional[int] = None,
    ) -> None:
        """Tells how a call ended, or what the provider says is left of a limit. A throttled call's `retry_after`, in
        seconds, pauses the pool for as long on all nodes."""
        request = calls.observation(pool, outcome, retry_after, limit, remaining, limit_value)
        self._meaning(calls.done, self._exchange(request, self.timeout, False)[0])

    def close(self) -> None:
        """Closes idle connections. The client can still be used."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _get(self, path: str) -> Dict[str, Any]:
        return self._meaning(calls.listed, self._exchange(calls.get(path), self.timeout, True)[0])

    def _settle(self, permit: str, verb: str, used: Mapping[str, Any], bound: Optional[_Connection]) -> Settlement:
        # Settling again changes nothing, so that it may be asked twice.
        request = calls.settle(permit, verb, used)
        answer, _ = self._exchange(request, self.timeout, True, connection=bound)
        return self._meaning(calls.settled, answer)

    def _exchange(
        self,
        request: bytes,
        patience: float,
        repeatable: bool,
        keep: bool = False,
        connection: Optional[_Connection] = None,
    ) -> Tuple[Answer, Optional[_Connection]]:
        """Sends a request and reads its answer, within so many seconds, on `connection` if there is one. With `keep`, the
        connection is the caller's afterwards."""
        deadline = time.monotonic() + patience
        while True:
            if connection is None:
                connection = self._take()
            is_new, connection.is_new = connection.is_new, False
            try:
                answer = connection.exchange(request, deadline)
            except Lost as lost:
                connection.close()
                connection = None
                # A connection that was kept may have been closed meanwhile, by a daemon that was restarted say, which
                # shows only now. Each round uses one up, so that this ends.
                if is_new or not (lost.unread or repeatable):
                    raise Unavailable(f"the daemon at {self.socket} {lost}", not lost.unread) from None
                continue
            except Broken as broken:
                connection.close()
                raise Unavailable(f"the daemon at {self.socket} {broken}") from None
            except socket.timeout:
                connection.close()
                message = f"the daemon at {self.socket} did not answer within {patience:g} s"
                raise TimedOut(message, True) from None
            except BaseException:
                # Its answer would be taken for the next request's.
                connection.close()
                raise
            if keep and answer.status == 200:
                return answer, connection
            if answer.reusable and len(self._idle) < calls.CONNECTIONS_KEPT and self._process == os.getpid():
                self._idle.append(connection)
            else:
                connection.close()
            return answer, None

    def _take(self) -> _Connection:
        if self._process != os.getpid():
            # After a fork the connections are the parent's too. They are closed here, which does not end them there.
            self._idle, self._process = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return _Connection(self.socket, self.timeout)
        except OSError as error:
            raise calls.unreachable(self.socket, error) from None


class Permit(PermitBase):
    """An admitted call. Settle it: what was reserved and not used comes back, and slots are free.

    As a context manager it settles itself: it commits what `used` said, or as reserved if `used` was never called; if the
    block raises and `used` was never called, nothing was used and it is released. That settling fails is logged there,
    not raised: what was reserved then counts as used. `commit` and `release` raise.
    """

    def __init__(
        self,
        client: Client,
        said: Mapping[str, Any],
        connection: Optional[_Connection],
        taken: Optional[Taken] = None,
    ) -> None:
        super().__init__(said, taken)
        self._client = client
        self._connection = connection

    def commit(
        self,
        *,
        tokens: Optional[int] = None,
        requests: Optional[int] = None,
        cost: Optional[Mapping[str, int]] = None,
    ) -> Settlement:
        """Settles it as used, by what is said here, else by what `used` said, else as reserved. Raises `PermitEnded` or
        `Unavailable`. Again, it gives the same answer and changes nothing."""
        return self._settle("commit", self._note_used(tokens, requests, cost))

    def release(self) -> Settlement:
        """Settles it as not used. As `commit` otherwise."""
        return self._settle("release", {})

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._settled is not None:
            return
        try:
            if error is not None and self._used is None:
                self.release()
            else:
                self.commit()
        except AquiferError as failure:
            self._not_settled(failure)

    def _settle(self, verb: str, used: Mapping[str, Any]) -> Settlement:
        if self._settled is not None:
            return self._settled._replace(repeated=True)
        permit, connection = self.id, self._connection
        if permit is None:
            self._settled = self._client._settle_locally(self._taken, verb, used)
        else:
            self._connection = None
            self._settled = self._client._settle(permit, verb, used, connection)
        return self._settled


class _Connection:
    """One connection, with one request at a time. The kernel keeps the time, so that a request costs two system calls."""

    __slots__ = ("_patience", "_socket", "is_new")

    def __init__(self, path: str, timeout: float) -> None:
        self.is_new = True
        self._patience = -1.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout))
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def exchange(self, request: bytes, deadline: float) -> Answer:
        """Raises `Lost`, `Broken` or `socket.timeout`."""
        try:
            self._socket.sendall(request)
        except BlockingIOError:
            raise socket.timeout() from None
        except OSError as error:
            # A part of a request is none.
            raise Lost(f"hung up ({error})", unread=True) from None
        parser = Parser()
        while True:
            data = self._receive(deadline, parser.started)
            answer = parser.feed(data)
            if answer is not None:
                return answer

    def _receive(self, deadline: float, started: bool) -> bytes:
        while True:
            left = deadline - time.monotonic()
            if left <= 0.0:
                raise socket.timeout
            # Setting it costs a system call: a little more than the deadline will do.
            if not left <= self._patience <= left + 1.0:
                self._patience = left + 0.5
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(self._patience))
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                continue
            except OSError as error:
                # A Unix socket is reset when it is closed with something in it that was not read.
                unread = error.errno == errno.ECONNRESET and not started
                raise Lost(f"hung up ({error})", unread) from None
            if not data:
                raise Lost("hung up before it had answered", unread=False)
            return data

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        # That whoever forgets a client, or a permit that is bound to it, closes it is what binding is for.
        self._socket.close()


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("@ll", whole, max(1, int((seconds - whole) * 1_000_000)))
