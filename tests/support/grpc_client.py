"""Clients of the daemon's gRPC socket that know nothing of it: Envoy's own messages as gRPC publishes them (xds-protos), and
for the daemon's own service what reflection says. Run by tests/grpc.rs, which starts the daemon."""

import os
import threading
import time
import unittest

import grpc
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TARGET = os.environ["GRPC_TARGET"]
OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
Unit = rls_pb2.RateLimitResponse.RateLimit
TIMEOUT = 20


def channel():
    # Each its own connection. On a Unix socket this client would call the host by the socket's path, which no host is called.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost")]
    return grpc.insecure_channel(TARGET, options=options)


class Envoy(unittest.TestCase):
    def setUp(self):
        self.channel = channel()
        self.addCleanup(self.channel.close)
        self.stub = rls_pb2_grpc.RateLimitServiceStub(self.channel)

    def ask(self, *descriptors, domain="gateway", hits=0):
        """Each descriptor is its entries, and perhaps hits and whether they are negative."""
        request = rls_pb2.RateLimitRequest(domain=domain, hits_addend=hits)
        for entries, *rest in descriptors:
            descriptor = request.descriptors.add()
            for key, value in entries:
                descriptor.entries.add(key=key, value=value)
            if rest and rest[0] is not None:
                descriptor.hits_addend.value = rest[0]
            if len(rest) > 1 and rest[1]:
                # Field 4, is_negative_hits, newer than these messages; what they do not know they pass on.
                descriptor.MergeFromString(b"\x20\x01")
        return self.stub.ShouldRateLimit(request, timeout=TIMEOUT)

    def left(self, entries):
        answer = self.ask((entries, 0))
        return answer.overall_code, answer.statuses[0].limit_remaining

    def test_requests_are_counted_down_and_then_refused_at_once(self):
        path = [("path", "/count")]
        answers = [self.ask((path,)) for _ in range(3)]
        self.assertEqual([answer.overall_code for answer in answers], [OK] * 3)
        self.assertEqual([answer.statuses[0].limit_remaining for answer in answers], [2, 1, 0])
        limit = answers[0].statuses[0].current_limit
        self.assertEqual((limit.name, limit.requests_per_unit, limit.unit), ("rph", 3, Unit.HOUR))
        begun = time.monotonic()
        over = self.ask((path,))
        # The pool would have a caller wait for 30 s.
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual((over.overall_code, over.statuses[0].limit_remaining), (OVER, 0))
        self.assertTrue(60 < over.statuses[0].duration_until_reset.seconds < 2 * 3600)

    def test_each_descriptor_counts_on_its_own(self):
        spent, fresh, unknown = [("path", "/one")], [("path", "/two")], [("colour", "red")]
        self.ask((spent,))
        answer = self.ask((spent,), (fresh,), (unknown,))
        self.assertEqual(answer.overall_code, OVER)
        self.assertEqual([status.code for status in answer.statuses], [OVER, OK, OK])
        self.assertEqual(self.left(fresh), (OK, 4))
        self.assertFalse(answer.statuses[2].HasField("current_limit"))

    def test_what_no_rule_matches_is_not_limited(self):
        for entries, domain in [
            ([("path", "/count")], "other"),
            ([("path", "/nowhere")], "gateway"),
            ([("path", "/count"), ("user", "x")], "gateway"),
            ([], "gateway"),
        ]:
            answer = self.ask((entries,), domain=domain)
            self.assertEqual((answer.overall_code, answer.statuses[0].code), (OK, OK), entries)
            self.assertFalse(answer.statuses[0].HasField("current_limit"))

    def test_hits_of_the_request_and_of_descriptors(self):
        path = [("path", "/hits")]
        self.assertEqual(self.ask((path,), hits=5).statuses[0].limit_remaining, 95)
        self.assertEqual(self.ask((path, 10), hits=5).statuses[0].limit_remaining, 85)
        self.assertEqual(self.left(path), (OK, 85))
        self.assertEqual(self.ask((path, 86)).overall_code, OVER)
        self.assertEqual(self.ask((path, 85)).overall_code, OK)
        self.assertEqual(self.left(path), (OVER, 0))
        self.assertEqual(self.ask((path, 2**63)).overall_code, OVER)

    def test_negative_hits_give_back_what_was_taken_and_no_more(self):
        path = [("path", "/refund")]
        back = lambda hits: self.ask((path, hits, True)).statuses[0].limit_remaining
        for hits in [30, 20, 10]:
            self.ask((path, hits))
        self.assertEqual(back(30), 70)
        # All of the ten, and five of the twenty.
        self.assertEqual(back(15), 85)
        # Of the twenty fifteen were used.
        self.assertEqual(back(1000), 85)
        self.ask((path, 5))
        self.assertEqual(back(1000), 85)

    def test_slots_are_taken_and_given_back(self):
        path = [("path", "/slots")]
        self.assertEqual([self.ask((path,)).overall_code for _ in range(3)], [OK, OK, OVER])
        self.ask((path, None, True))
        self.assertEqual([self.ask((path,)).overall_code for _ in range(2)], [OK, OVER])

    def test_each_key_has_the_limits_for_itself(self):
        for user in ["ann", "bob", "c" * 1000, "c" * 1001]:
            entries = [("path", "/users/7"), ("user", user)]
            answers = [self.ask((entries,)) for _ in range(3)]
            self.assertEqual([answer.overall_code for answer in answers], [OK, OK, OVER], user)
            self.assertEqual([answer.statuses[0].limit_remaining for answer in answers], [1, 0, 0], user)
        self.assertEqual(self.left([("path", "/users/8"), ("user", "dan")]), (OK, 2))
        self.assertEqual(self.left([("path", "/users/8"), ("user", "ann")]), (OVER, 0))

    def test_what_was_used_already_counts_even_without_room(self):
        tokens = [("model", "large")]
        self.assertEqual(self.ask((tokens, 900)).overall_code, OK)
        self.assertEqual(self.ask((tokens, 900)).overall_code, OVER)
        # 900 of debt, and 900 more: the limit is 1,000 an hour, so asking again makes no sense for long.
        self.assertEqual(self.ask((tokens, 900)).overall_code, OVER)
        self.assertEqual(self.left(tokens), (OVER, 0))

    def test_headers_say_what_is_left(self):
        answer = self.ask(([("path", "/shown")],))
        headers = {header.key: header.value for header in answer.response_headers_to_add}
        self.assertEqual(headers["x-ratelimit-limit"], '10, 10;w=60;name="rpm"')
        self.assertEqual(headers["x-ratelimit-remaining"], "9")
        self.assertIn(headers["x-ratelimit-reset"], ("5", "6"))
        self.assertFalse(self.ask(([("path", "/hits")], 0)).response_headers_to_add)

    def test_what_says_nothing_is_wrong(self):
        for request in [
            rls_pb2.RateLimitRequest(domain="gateway"),
            rls_pb2.RateLimitRequest(descriptors=[{}]),
            rls_pb2.RateLimitRequest(domain="gateway", descriptors=[{}] * 65),
        ]:
            with self.assertRaises(grpc.RpcError) as raised:
                self.stub.ShouldRateLimit(request, timeout=TIMEOUT)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)


class Aquifer(unittest.TestCase):
    def setUp(self):
        self.channel = channel()
        self.addCleanup(self.channel.close)
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.service = self.pool.FindServiceByName("aquifer.v1.Aquifer")

    def message(self, name, **fields):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"aquifer.v1.{name}"))(**fields)

    def call(self, name, request, channel=None):
        method = self.service.FindMethodByName(name)
        answer = message_factory.GetMessageClass(method.output_type)
        kind = "unary_stream" if method.server_streaming else "unary_unary"
        serialize = type(request).SerializeToString
        call = getattr(channel or self.channel, kind)(
            f"/aquifer.v1.Aquifer/{name}", request_serializer=serialize, response_deserializer=answer.FromString
        )
        return call(request, timeout=TIMEOUT)

    def acquire(self, channel=None, **fields):
        return self.call("Acquire", self.message("AcquireRequest", **fields), channel)

    def refused(self, code, name, request):
        with self.assertRaises(grpc.RpcError) as raised:
            self.call(name, request)
        self.assertEqual(raised.exception.code(), code, raised.exception.details())
        return raised.exception.details()

    def test_a_permit_is_taken_and_settled_once(self):
        permit = self.acquire(pool=["model"], tokens=400, agent="a", priority=2, wait_ms=0)
        self.assertTrue(permit.allowed)
        self.assertEqual([(limit.name, limit.remaining) for limit in permit.limits], [("rph", 99), ("tph", 600)])
        used = self.message("Used", tokens=100)
        settled = self.call("Settle", self.message("SettleRequest", permit=permit.permit, commit=used))
        self.assertEqual((dict(settled.refunded), settled.ended, settled.repeated), ({"tph": 300}, "committed", False))
        nothing = self.message("Nothing")
        again = self.call("Settle", self.message("SettleRequest", permit=permit.permit, release=nothing))
        self.assertEqual((dict(again.refunded), again.ended, again.repeated), ({"tph": 300}, "committed", True))
        request = self.message("SettleRequest", permit=permit.permit)
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "Settle", request)

    def test_a_refusal_is_an_answer(self):
        answer = self.acquire(pool=["model"], tokens=5000, wait_ms=0)
        self.assertEqual((answer.allowed, answer.reason, answer.limited_by), (False, 6, "tph"))
        self.assertIn("can never hold", answer.detail)

    def test_mistakes_name_their_field(self):
        for fields, code, words in [
            ({}, grpc.StatusCode.INVALID_ARGUMENT, "pool: "),
            ({"pool": ["modell"]}, grpc.StatusCode.NOT_FOUND, 'did you mean "model"'),
            ({"pool": ["model"], "cost": {"rpx": 1}}, grpc.StatusCode.INVALID_ARGUMENT, "cost.rpx: "),
            ({"pool": ["model"], "ttl_ms": 0}, grpc.StatusCode.INVALID_ARGUMENT, "ttl_ms: "),
            ({"pool": ["model"], "wait_ms": 10**12}, grpc.StatusCode.INVALID_ARGUMENT, "wait_ms: "),
            ({"pool": ["model"], "priority": 9}, grpc.StatusCode.INVALID_ARGUMENT, "priority: "),
        ]:
            self.assertIn(words, self.refused(code, "Acquire", self.message("AcquireRequest", **fields)))

    def test_a_stream_holds_its_permit_and_its_end_frees_it(self):
        hold = self.call("Hold", self.message("AcquireRequest", pool=["slot"], wait_ms=0))
        self.assertTrue(next(hold).allowed)
        self.assertFalse(self.acquire(pool=["slot"], wait_ms=0).allowed)
        waiting = threading.Thread(target=self.free_soon, args=[hold.cancel])
        waiting.start()
        after = self.acquire(pool=["slot"], wait_ms=10_000)
        waiting.join()
        self.assertTrue(after.allowed)
        self.assertGreater(after.waited_ms, 50)
        release = self.message("SettleRequest", permit=after.permit, release=self.message("Nothing"))
        self.call("Settle", release)
        # Settling it ends the stream from the other side.
        hold = self.call("Hold", self.message("AcquireRequest", pool=["slot"], wait_ms=0))
        permit = next(hold).permit
        release = self.message("SettleRequest", permit=permit, release=self.message("Nothing"))
        self.call("Settle", release)
        self.assertEqual(list(hold), [])
        refused = self.call("Hold", self.message("AcquireRequest", pool=["model"], tokens=5000, wait_ms=0))
        self.assertEqual([answer.allowed for answer in refused], [False])

    def free_soon(self, free):
        time.sleep(0.2)
        free()

    def test_a_permit_can_end_with_its_connection(self):
        other = channel()
        self.assertTrue(self.acquire(other, pool=["bound"], wait_ms=0, bind=1).allowed)
        self.assertFalse(self.acquire(pool=["bound"], wait_ms=0).allowed)
        other.close()
        self.assertTrue(self.acquire(pool=["bound"], wait_ms=10_000).allowed)

    def test_who_cancels_leaves_the_queue(self):
        self.assertTrue(self.acquire(pool=["queue"], wait_ms=0).allowed)
        request = self.message("AcquireRequest", pool=["queue"], wait_ms=3_600_000)
        method = self.channel.unary_unary(
            "/aquifer.v1.Aquifer/Acquire", request_serializer=type(request).SerializeToString
        )
        call = method.future(request)
        self.until_waiting("queue", 1)
        call.cancel()
        self.until_waiting("queue", 0)

    def until_waiting(self, name, count):
        updates = self.call("WatchStatus", self.message("WatchStatusRequest", interval_ms=100))
        for status in updates:
            if [pool.waiting for pool in status.pools if pool.name == name] == [count]:
                return updates.cancel()

    def test_the_status_is_watched(self):
        updates = self.call("WatchStatus", self.message("WatchStatusRequest", interval_ms=100))
        first, second = next(updates), next(updates)
        updates.cancel()
        self.assertEqual((first.node, first.name, first.state), (second.node, "n", "ready"))
        self.assertIn("model", [pool.name for pool in first.pools])
        wrong = self.call("WatchStatus", self.message("WatchStatusRequest", interval_ms=1))
        with self.assertRaises(grpc.RpcError) as raised:
            next(wrong)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)


class Standard(unittest.TestCase):
    def setUp(self):
        self.channel = channel()
        self.addCleanup(self.channel.close)

    def test_health(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ["", "aquifer.v1.Aquifer", "envoy.service.ratelimit.v3.RateLimitService"]:
            request = health_pb2.HealthCheckRequest(service=service)
            self.assertEqual(health.Check(request, timeout=TIMEOUT).status, serving)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        self.assertEqual(next(watch).status, serving)
        watch.cancel()
        with self.assertRaises(grpc.RpcError) as raised:
            health.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=TIMEOUT)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_reflection(self):
        services = ProtoReflectionDescriptorDatabase(self.channel).get_services()
        for service in ["aquifer.v1.Aquifer", "envoy.service.ratelimit.v3.RateLimitService", "grpc.health.v1.Health"]:
            self.assertIn(service, services)

    def test_what_is_not_there(self):
        for method in ["/no.such.Service/Call", "/aquifer.v1.Aquifer/Spend"]:
            with self.assertRaises(grpc.RpcError) as raised:
                self.channel.unary_unary(method)(b"", timeout=TIMEOUT)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_long_messages_are_refused(self):
        stub = rls_pb2_grpc.RateLimitServiceStub(self.channel)
        with self.assertRaises(grpc.RpcError) as raised:
            stub.ShouldRateLimit(rls_pb2.RateLimitRequest(domain="x" * 100_000), timeout=TIMEOUT)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.OUT_OF_RANGE)


if __name__ == "__main__":
    unittest.main()
