"""HTTP/1.1 as bytes, no further than the daemon speaks it: answers with a `content-length`, never chunked.

`http.client` takes several times as long for one request as the daemon does, in parsing heads as e-mail.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

ANSWER_MAX = 8 << 20
"""The largest answer that is read: 8 MiB, as the daemon's own client."""
HEAD_MAX = 64 << 10
"""The largest head of an answer."""


class Answer(NamedTuple):
    """One answer."""

    status: int
    body: bytes
    reusable: bool
    """Whether the connection may carry another request."""


class Broken(Exception):
    """What came is no answer of a daemon; says why, as the end of a sentence."""


class Lost(Exception):
    """The connection ended before the answer did."""

    def __init__(self, why: str, unread: bool) -> None:
        super().__init__(why)
        self.unread = unread
        """Whether the daemon certainly did not read the whole request, so that it did nothing."""


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """A request in one piece."""
    if method == "GET":
        return f"GET {path} HTTP/1.1\r\nhost: aquifer\r\n\r\n".encode("ascii")
    head = f"{method} {path} HTTP/1.1\r\nhost: aquifer\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


class Parser:
    """Puts one answer together."""

    __slots__ = ("_data", "_end", "_length", "_reusable", "_status")

    def __init__(self) -> None:
        self._data = b""
        self._end = -1
        self._length = 0
        self._status = 0
        self._reusable = True

    @property
    def started(self) -> bool:
        """Whether anything of the answer has come."""
        return bool(self._data)

    def feed(self, data: bytes) -> Optional[Answer]:
        """The next bytes; the answer once it is whole. Raises `Broken`."""
        self._data = self._data + data if self._data else data
        if self._end < 0:
            self._end = self._data.find(b"\r\n\r\n")
            if self._end < 0:
                if len(self._data) > HEAD_MAX:
                    raise Broken("answered with a head of more than 64 KiB")
                return None
            self._parse_head(self._data[: self._end].lower())
        start = self._end + 4
        extra = len(self._data) - start - self._length
        if extra < 0:
            return None
        # What comes unasked belongs to no request: such a connection is not used again.
        return Answer(self._status, self._data[start : start + self._length], self._reusable and extra == 0)

    def _parse_head(self, head: bytes) -> None:
        try:
            if not head.startswith(b"http/1.1 "):
                raise ValueError
            self._status = int(head[9:12])
            place = head.find(b"\r\ncontent-length:")
            if place >= 0:
                self._length = int(head[place + 17 :].split(b"\r\n", 1)[0])
            elif self._status != 204:
                raise ValueError
        except ValueError:
            raise Broken("answered something that is not the daemon's HTTP") from None
        if not 0 <= self._length <= ANSWER_MAX:
            raise Broken("answered with more than 8 MiB")
        self._reusable = b"\r\nconnection: close" not in head
