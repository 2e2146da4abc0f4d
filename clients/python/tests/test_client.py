"""What callers meet, on both clients alike where they do the same."""

import asyncio
import os
import pickle
import tempfile
import threading
import time
import unittest
from typing import Any, Callable, List, Optional, Tuple
from unittest import mock

import aquifer
from aquifer import AsyncClient, Client, Limited

from .daemon import Daemon


class Finding(unittest.TestCase):
    def test_the_socket_is_where_the_command_line_looks(self) -> None:
        cases = [
            ({"AQUIFER_SOCKET": "/a/b", "XDG_RUNTIME_DIR": "/x"}, "/a/b"),
            ({"AQUIFER_SOCKET": "", "XDG_RUNTIME_DIR": "/x"}, "/x/aquifer/aquifer.sock"),
            ({"XDG_RUNTIME_DIR": ""}, "/run/aquifer/aquifer.sock"),
            ({}, "/run/aquifer/aquifer.sock"),
        ]
        for environment, expected in cases:
            with mock.patch.dict(os.environ, environment, clear=True):
                self.assertEqual(aquifer.default_socket(), expected)
                self.assertEqual((Client().socket, AsyncClient().socket), (expected, expected))


def left(client: Client, pool: str, limit: str) -> int:
    pools = {one["name"]: one for one in client.status()["pools"]}
    return int({one["name"]: one for one in pools[pool]["limits"]}[limit]["remaining"])


class Permits(unittest.TestCase):
    def setUp(self) -> None:
        self.client = Client(agent="tester")
        self.addCleanup(self.client.close)

    def test_what_was_said_to_be_used_is_committed(self) -> None:
        with self.client.acquire("settled", tokens=500, priority="high", wait=1.0) as permit:
            self.assertEqual((permit.pool, permit.guarantee), ("settled", "available"))
            self.assertEqual({one.name: one.remaining for one in permit.limits}["tph"], 500)
            permit.used(tokens=120)
        self.assertEqual(left(self.client, "settled", "tph"), 880)
        again = permit.commit(tokens=900)
        self.assertEqual((again.refunded, again.ended, again.repeated), ({"tph": 380}, "committed", True))
        with self.client.acquire("settled", tokens=80):
            pass
        self.assertEqual(left(self.client, "settled", "tph"), 800)
        debt = self.client.acquire("settled", cost={"tph": 50}).commit(cost={"tph": 60}).debt
        self.assertEqual(debt, {"tph": 10})

    def test_a_call_that_failed_gives_back_what_it_did_not_use(self) -> None:
        with self.assertRaises(KeyError):
            with self.client.acquire("failed", tokens=500):
                raise KeyError
        self.assertEqual((left(self.client, "failed", "tph"), left(self.client, "failed", "rph")), (1000, 10))
        with self.assertRaises(KeyError):
            with self.client.acquire("failed", tokens=500) as permit:
                permit.used(tokens=200)
                raise KeyError
        self.assertEqual((left(self.client, "failed", "tph"), left(self.client, "failed", "rph")), (800, 9))
        self.assertEqual(self.client.acquire("failed", tokens=1).release().ended, "released")

    def test_refusals_say_why_and_when(self) -> None:
        self.client.acquire("few", wait=0)
        with self.assertRaises(Limited) as caught:
            self.client.acquire("few", wait=0)
        refusal = caught.exception
        self.assertEqual((refusal.pool, refusal.reason, refusal.limited_by), ("few", "limit", "rph"))
        assert refusal.retry_after is not None
        self.assertGreater(refusal.retry_after, 1_000)
        self.assertIn("ask again in", str(refusal))
        self.assertEqual(str(pickle.loads(pickle.dumps(refusal))), str(refusal))
        with self.assertRaises(Limited) as caught:
            self.client.acquire("few", requests=2)
        self.assertEqual((caught.exception.reason, caught.exception.retry_after), ("never", None))
        with self.assertRaises(Limited) as caught:
            self.client.acquire("few", wait=0.05)
        self.assertEqual(caught.exception.reason, "deadline")
        self.assertEqual(self.client.acquire(["few", "spare"], wait=0).pool, "spare")

    def test_mistakes_name_their_member(self) -> None:
        mistakes: List[Tuple[Callable[[], object], int, Optional[str]]] = [
            (lambda: self.client.acquire("fwe"), 404, "pool"),
            (lambda: self.client.acquire("few", tokens=-1), 400, "tokens"),
            (lambda: self.client.acquire("few", key="k"), 400, "key"),
            (lambda: self.client.observe("few"), 400, "outcome"),
            (lambda: self.client.explain("é/b c"), 404, None),
        ]
        for ask, status, field in mistakes:
            with self.assertRaises(aquifer.BadRequest) as caught:
                ask()
            self.assertEqual((caught.exception.status, caught.exception.field), (status, field))
            self.assertIsInstance(caught.exception, ValueError)

    def test_a_bound_permit_ends_with_who_holds_it(self) -> None:
        permit = self.client.acquire("slots", bind="connection", wait=0)
        self.assertRaises(Limited, self.client.acquire, "slots", wait=0)
        del permit
        with self.client.acquire("slots", bind="connection", wait=10) as permit:
            # Other requests do not share its connection, nor end it.
            self.client.close()
            self.client.status()
            self.assertRaises(Limited, self.client.acquire, "slots", wait=0)
        self.client.acquire("slots", wait=0).release()

    def test_a_permit_that_is_over_cannot_be_settled(self) -> None:
        permit = self.client.acquire("spare", ttl=0.01)
        self.assertEqual(permit.expires_in, 0.01)
        time.sleep(0.1)
        self.assertRaises(aquifer.PermitEnded, permit.commit)
        with self.assertLogs("aquifer", "WARNING"):
            with self.client.acquire("spare", ttl=0.01):
                time.sleep(0.1)

    def test_explanations_and_observations(self) -> None:
        self.assertTrue(self.client.explain("spare")["words"])
        self.client.observe("paused", "throttled", retry_after=30)
        with self.assertRaises(Limited) as caught:
            self.client.acquire("paused", wait=0)
        self.assertEqual(caught.exception.reason, "paused")

    def test_connections_are_kept_and_threads_do_not_share_one(self) -> None:
        self.client.acquire("fast").commit()
        before = self.client.status()["callers"]["connections"]
        for _ in range(50):
            self.client.acquire("fast").commit()
        self.assertEqual(self.client.status()["callers"]["connections"], before)
        errors: List[BaseException] = []

        def ask() -> None:
            try:
                for _ in range(50):
                    with self.client.acquire("fast", agent=threading.current_thread().name) as permit:
                        assert permit.id is not None
            except BaseException as error:  # Seen by the thread of the test.
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        self.assertLessEqual(self.client.status()["callers"]["connections"], before + 7)

    def test_a_child_does_not_speak_on_its_parents_connections(self) -> None:
        self.client.status()
        child = os.fork()
        if child == 0:
            try:
                mine = self.client.status()["callers"]["connections"]
                os._exit(0 if mine >= 2 else 1)
            except BaseException:
                os._exit(2)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.client.status()

    def test_a_deadline_ends_a_wait(self) -> None:
        holder = self.client.acquire("slot", wait=0)
        start = time.monotonic()
        self.assertRaises(aquifer.TimedOut, self.client.acquire, "slot", wait=20, timeout=0.2)
        self.assertLess(time.monotonic() - start, 5)
        holder.release()
        # Whoever gave up holds nothing.
        self.client.acquire("slot", wait=10).release()


class AsyncPermits(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.client = AsyncClient(agent="tester")

    async def asyncTearDown(self) -> None:
        await self.client.close()

    async def test_permits_settle_themselves(self) -> None:
        async with self.client.acquire("async", tokens=500) as permit:
            permit.used(tokens=100)
        self.assertEqual((await permit.commit()).refunded, {"tph": 400})
        with self.assertRaises(KeyError):
            async with self.client.acquire("async", tokens=500):
                raise KeyError
        permit = await self.client.acquire("async", tokens=900, wait=0)
        self.assertEqual({one.name: one.remaining for one in permit.limits}["tph"], 0)
        self.assertEqual((await permit.release()).refunded["tph"], 900)

    async def test_refusals_mistakes_and_listings(self) -> None:
        with self.assertRaises(Limited) as caught:
            await self.client.acquire("async", tokens=2000)
        self.assertEqual((caught.exception.reason, caught.exception.limited_by), ("never", "tph"))
        with self.assertRaises(aquifer.BadRequest):
            await self.client.acquire("nope")
        self.assertEqual((await self.client.status())["version"], 1)
        self.assertTrue((await self.client.explain("async"))["words"])
        await self.client.observe("async", "ok")

    async def test_many_tasks_share_a_few_connections(self) -> None:
        async def one() -> Optional[str]:
            async with self.client.acquire("fast") as permit:
                return permit.id

        ids = await asyncio.gather(*(one() for _ in range(100)))
        self.assertEqual(len(set(ids)), 100)
        before = (await self.client.status())["callers"]["connections"]
        for _ in range(20):
            await one()
        self.assertLessEqual((await self.client.status())["callers"]["connections"], before)

    async def test_who_is_cancelled_takes_nothing(self) -> None:
        holder = await self.client.acquire("async-slot", bind="connection", wait=0)
        waiter = asyncio.ensure_future(self.client._acquire(aquifer._calls.Ask("async-slot", wait=20)))
        while (await self.client.explain("async-slot"))["waiting"]["normal"] == 0:
            await asyncio.sleep(0.01)
        waiter.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await waiter
        while (await self.client.explain("async-slot"))["waiting"]["normal"] == 1:
            await asyncio.sleep(0.01)
        await holder.release()
        await (await self.client.acquire("async-slot", wait=10)).release()
        with self.assertRaises(aquifer.TimedOut):
            async with self.client.acquire("async-slot"):
                await self.client.acquire("async-slot", wait=20, timeout=0.1)

    def test_a_client_serves_several_loops(self) -> None:
        client = AsyncClient()

        async def once() -> int:
            await (await client.acquire("fast")).commit()
            connections = (await client.status())["callers"]["connections"]
            await client.close()
            return int(connections)

        self.assertGreater(asyncio.run(once()), 0)
        self.assertGreater(asyncio.run(once()), 0)


class Decorated(unittest.TestCase):
    def test_functions_of_both_kinds(self) -> None:
        client = Client()

        @aquifer.limited("decorated", tokens=lambda text: len(text), wait=5)
        def shout(text: str) -> str:
            permit = aquifer.current_permit()
            assert permit is not None
            permit.used(tokens=3)
            return text.upper()

        async_client = AsyncClient()

        @aquifer.limited("decorated", tokens=10, client=async_client)
        async def whisper(text: str) -> str:
            return text.lower()

        async def run() -> str:
            async with async_client:
                return await whisper("B")

        self.assertEqual(shout("a" * 100), "A" * 100)
        self.assertEqual((shout.__name__, aquifer.current_permit()), ("shout", None))
        self.assertEqual(left(client, "decorated", "tph"), 997)
        self.assertEqual(asyncio.run(run()), "b")
        self.assertEqual(left(client, "decorated", "tph"), 987)
        self.assertRaises(Limited, shout, "a" * 1001)

    def test_what_cannot_be_decorated(self) -> None:
        def numbers() -> Any:
            yield 1

        self.assertRaises(TypeError, aquifer.limited("few"), numbers)
        self.assertRaises(TypeError, aquifer.limited("few", client=AsyncClient()), len)


class Missing(unittest.TestCase):
    def test_without_a_daemon_the_client_does_as_it_was_told(self) -> None:
        nowhere = os.path.join(tempfile.gettempdir(), "no-daemon-here.sock")
        with self.assertRaises(aquifer.Unavailable) as caught:
            Client(nowhere).acquire("few")
        self.assertIn("aquifer up", str(caught.exception))
        self.assertIsInstance(caught.exception, ConnectionError)
        self.assertFalse(caught.exception.maybe_admitted)
        with Client(nowhere, on_missing="open").acquire("few", tokens=10**9) as permit:
            self.assertEqual((permit.guarantee, permit.id, permit.limits), ("open", None, ()))
        with self.assertRaises(aquifer.Unavailable):
            Client(nowhere, on_missing="local").acquire("few")

        async def ask() -> str:
            async with AsyncClient(nowhere, on_missing="open").acquire("few") as permit:
                return permit.guarantee

        self.assertEqual(asyncio.run(ask()), "open")

    def test_a_daemon_that_comes_back_is_asked_again(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            daemon = Daemon(directory, "api:rph=6", "--policy", "strict")
            client, local = Client(daemon.socket), Client(daemon.socket, on_missing="local")
            loop = asyncio.new_event_loop()
            later = AsyncClient(daemon.socket)
            try:
                client.acquire("api")
                local.acquire("api")
                loop.run_until_complete(self.ask(later))
                daemon.stop()
                self.assertRaises(aquifer.Unavailable, client.acquire, "api")
                with self.assertRaises(aquifer.Unavailable):
                    loop.run_until_complete(self.ask(later))
                # Four of the six were left when it last told.
                for _ in range(4):
                    self.assertEqual(local.acquire("api").guarantee, "local")
                with self.assertRaises(Limited) as caught:
                    local.acquire("api")
                self.assertEqual((caught.exception.reason, caught.exception.limited_by), ("local", "rph"))
                daemon.start()
                self.assertEqual(client.status()["version"], 1)
                self.assertEqual(loop.run_until_complete(later.status())["version"], 1)
                with self.assertRaises(Limited) as caught:
                    for _ in range(7):
                        local.acquire("api", wait=0)
                self.assertEqual(caught.exception.reason, "limit", "the daemon's answer, not the client's")
                # Both kept a connection to a daemon that is no more.
                daemon.stop()
                daemon.start()
                with self.assertRaises(Limited):
                    client.acquire("api", wait=0)
                with self.assertRaises(Limited):
                    loop.run_until_complete(self.ask(later))
            finally:
                loop.run_until_complete(later.close())
                loop.close()
                client.close()
                local.close()
                daemon.stop()

    async def ask(self, client: AsyncClient) -> None:
        await client.acquire("api", wait=0)
