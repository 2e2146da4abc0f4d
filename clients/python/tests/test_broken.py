"""Daemons that hang up or answer nonsense: what is asked twice, and what never is."""

import asyncio
import os
import socket
import tempfile
import threading
import time
import unittest
from typing import Any, Callable, Dict, List

import aquifer
from aquifer import AsyncClient, Client
from aquifer._http import Broken, Parser, request

ADMITTED = b'{"allowed":true,"permit":"01ab","pool":"p","guarantee":"strict","limits":[]}'
SETTLED = b'{"refunded":{},"debt":{},"ended":"committed"}'


def answer(body: bytes, status: str = "200 OK", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


class Server:
    """Gives each connection to the next of some functions, which are all that it ever serves."""

    def __init__(self, *serve: Callable[[socket.socket], None]) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._directory.name, "a.sock")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self.served = 0
        self._serve = serve
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for serve in self._serve:
            connection, _ = self._listener.accept()
            self.served += 1
            serve(connection)
            connection.close()
        self._listener.close()

    def end(self) -> None:
        self._thread.join()
        self._directory.cleanup()


def serves(*answers: bytes) -> Callable[[socket.socket], None]:
    """Reads one request for each answer, and hangs up after the last."""

    def serve(connection: socket.socket) -> None:
        for one in answers:
            assert connection.recv(1 << 16)
            connection.sendall(one)

    return serve


def swallows(connection: socket.socket) -> None:
    """Reads a request and hangs up."""
    assert connection.recv(1 << 16)


def refuses_to_read(connection: socket.socket) -> None:
    """Waits until a request is there and hangs up without reading it."""
    connection.recv(1, socket.MSG_PEEK)


class HangingUp(unittest.TestCase):
    def both(self, serve: List[Callable[[socket.socket], None]], ask: Callable[[Client], None]) -> None:
        """Does the same with both clients, each against a server of its own."""
        for make in (Client, Blocking):
            server = Server(*serve)
            client = make(server.path)
            try:
                ask(client)
            finally:
                client.close()
                server.end()
            self.assertEqual(server.served, len(serve))

    def test_a_kept_connection_that_ended_is_replaced(self) -> None:
        def ask(client: Client) -> None:
            client.acquire("p")
            time.sleep(0.05)
            client.acquire("p")

        self.both([serves(answer(ADMITTED)), serves(answer(ADMITTED))], ask)

    def test_what_was_certainly_not_read_is_asked_again(self) -> None:
        def half(connection: socket.socket) -> None:
            serves(answer(ADMITTED))(connection)
            refuses_to_read(connection)

        def ask(client: Client) -> None:
            client.acquire("p")
            client.acquire("p")

        self.both([half, serves(answer(ADMITTED))], ask)

    def test_what_may_have_been_admitted_is_not_asked_again(self) -> None:
        def half(connection: socket.socket) -> None:
            serves(answer(ADMITTED))(connection)
            swallows(connection)

        def ask(client: Client) -> None:
            client.acquire("p")
            with self.assertRaises(aquifer.Unavailable) as caught:
                client.acquire("p")
            self.assertTrue(caught.exception.maybe_admitted)

        self.both([half], ask)

    def test_settling_is_asked_again(self) -> None:
        def half(connection: socket.socket) -> None:
            serves(answer(ADMITTED))(connection)
            swallows(connection)

        def ask(client: Client) -> None:
            self.assertEqual(client.acquire("p").commit(tokens=1).ended, "committed")

        self.both([half, serves(answer(SETTLED))], ask)

    def test_a_new_connection_that_fails_is_not_tried_for_ever(self) -> None:
        def ask(client: Client) -> None:
            with self.assertRaises(aquifer.Unavailable) as caught:
                client.acquire("p")
            self.assertFalse(caught.exception.maybe_admitted)

        self.both([refuses_to_read], ask)

    def test_nonsense_is_no_answer(self) -> None:
        for nonsense in [
            b"SSH-2.0-OpenSSH\r\n\r\n",
            answer(b"[]"),
            answer(b"{", "500 Oops"),
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"x" * 70_000,
        ]:

            def ask(client: Client) -> None:
                self.assertRaises(aquifer.Unavailable, client.acquire, "p", wait=0)

            self.both([serves(nonsense)], ask)

    def test_answers_nobody_asked_for_are_not_taken_for_the_next(self) -> None:
        other = answer(ADMITTED.replace(b"01ab", b"02cd"))

        def ask(client: Client) -> None:
            self.assertEqual(client.acquire("p").id, "01ab")
            self.assertEqual(client.acquire("p").id, "01ab")

        self.both([serves(answer(ADMITTED) + other), serves(answer(ADMITTED))], ask)
        self.both([serves(answer(ADMITTED, head="connection: close\r\n")), serves(answer(ADMITTED))], ask)

    def test_a_daemon_that_hangs_is_left(self) -> None:
        def hangs(connection: socket.socket) -> None:
            swallows(connection)
            self.assertEqual(connection.recv(1), b"", "it hung up")

        def ask(client: Client) -> None:
            client.timeout = 0.1
            self.assertRaises(aquifer.TimedOut, client.acquire, "p", wait=0)
            self.assertRaises(aquifer.TimedOut, client.status)

        self.both([hangs, hangs], ask)


class Blocking(Client):
    """The client for asyncio, in the place of the one for threads."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(path)

    def acquire(self, pool: aquifer.Pools, **ask: Any) -> aquifer.Permit:
        self._client.timeout = self.timeout

        async def acquire() -> aquifer.AsyncPermit:
            return await self._client.acquire(pool, **ask)

        permit = self._loop.run_until_complete(acquire())

        class Settling(aquifer.Permit):
            def commit(_, **used: Any) -> aquifer.Settlement:
                return self._loop.run_until_complete(permit.commit(**used))

        return Settling(self, permit._said, None)

    def status(self) -> Dict[str, Any]:
        return self._loop.run_until_complete(self._client.status())

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._client.close())
            self._loop.close()


class Parsing(unittest.TestCase):
    def test_answers_may_come_in_any_pieces(self) -> None:
        whole = answer(b'{"a":1}', "429 Too Many Requests", "Retry-After: 3\r\n")
        for cut in range(1, len(whole)):
            parser = Parser()
            self.assertIsNone(parser.feed(whole[:cut]))
            found = parser.feed(whole[cut:])
            assert found is not None
            self.assertEqual((found.status, found.body, found.reusable), (429, b'{"a":1}', True))
        self.assertEqual(Parser().feed(b"HTTP/1.1 204 No Content\r\n\r\n"), (204, b"", True))
        self.assertRaises(Broken, Parser().feed, b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n")

    def test_requests_are_one_piece(self) -> None:
        self.assertEqual(request("GET", "/livez"), b"GET /livez HTTP/1.1\r\nhost: aquifer\r\n\r\n")
        self.assertTrue(request("POST", "/x", b"{}").endswith(b"content-length: 2\r\n\r\n{}"))
