"""Why there is no permit. All are `AquiferError`."""

from __future__ import annotations

from typing import Optional


class AquiferError(Exception):
    """Anything that this package raises."""


class Limited(AquiferError):
    """The daemon said no: the call must not be made now."""

    def __init__(
        self,
        pool: str,
        reason: str,
        limited_by: Optional[str] = None,
        retry_after: Optional[float] = None,
        detail: Optional[str] = None,
    ) -> None:
        super().__init__(pool, reason, limited_by, retry_after, detail)
        self.pool = pool
        """The pool that refused."""
        self.reason = reason
        """`limit`, `deadline`, `queue_full`, `user_queue_full`, `paused`, `never`, `breaker`, `too_many_keys`; or
        `local`, by the client's own small bucket while no daemon answers."""
        self.limited_by = limited_by
        """The limit that stood in the way, if it was one."""
        self.retry_after = retry_after
        """Seconds until asking again makes sense, jittered; `None` if it never does."""
        self.detail = detail
        """The refusal in words."""

    def __str__(self) -> str:
        words = f"{self.pool}: {self.detail or self.reason}"
        return words if self.retry_after is None else f"{words}; ask again in {self.retry_after:.3f} s"


class Unavailable(AquiferError, ConnectionError):
    """No daemon answers at the socket, or it hung up."""

    def __init__(self, message: str, maybe_admitted: bool = False) -> None:
        super().__init__(message)
        self.maybe_admitted = maybe_admitted
        """Whether the daemon may have admitted the request before it was lost. What it took is spent then."""


class TimedOut(Unavailable, TimeoutError):
    """The daemon did not answer in time. It drops the request when it sees that nobody waits for it."""


class BadRequest(AquiferError, ValueError):
    """The daemon does not understand the request, or has no such pool."""

    def __init__(self, status: int, detail: str, field: Optional[str] = None) -> None:
        super().__init__(status, detail, field)
        self.status = status
        """The HTTP status: 400, 404, 413 and the like."""
        self.detail = detail
        """What is wrong and what to do."""
        self.field = field
        """The member of the request that is wrong."""

    def __str__(self) -> str:
        return self.detail


class NotPermitted(AquiferError, PermissionError):
    """This user may not use the socket, or not ask for this."""


class PermitEnded(AquiferError):
    """The permit cannot be settled any more: its time to live is over, or the daemon was restarted. What was reserved
    counts as used."""
