"""A caller with nothing but the standard library: asks, calls, settles, and is refused once."""

import http.client
import json
import socket
import sys


class Aquifer(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("aquifer")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)

    def post(self, path, body):
        self.request("POST", path, json.dumps(body))
        response = self.getresponse()
        return response, json.load(response)


aquifer = Aquifer(sys.argv[1])
response, permit = aquifer.post(
    "/v1/acquire",
    {"pool": "model", "tokens": 1000, "agent": "script", "priority": "high", "bind": "connection"},
)
assert response.status == 200 and permit["allowed"], permit
response, settled = aquifer.post(f"/v1/permits/{permit['permit']}/commit", {"tokens": 812})
assert response.status == 200, settled
response, refused = aquifer.post("/v1/acquire", {"pool": "model", "tokens": 500, "wait_ms": 0})
assert response.status == 429 and not refused["allowed"], refused
retry = int(response.headers["retry-after-ms"]) == refused["retry_after_ms"] > 0
print(json.dumps({"refunded": settled["refunded"], "refused": refused["reason"], "retry": retry}))
