"""Two limits that uvicorn has no setting for: how long a connection may stay silent, and how many
requests are worked on at once. uvicorn's own limit counts connections, silent ones too, so that a
few of them would keep the page from opening.
"""

import asyncio

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds in which the head of a request must arrive.
HEAD_SECONDS = 10.0


class HeadInTime(H11Protocol):
    """A connection that is closed if the head of a request is not complete after `HEAD_SECONDS`,
    however often a byte of it arrives. Between two requests uvicorn's own, shorter limit holds.
    """

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Handle what has arrived; wait no longer if a head is complete, and anew if one begins."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._closing is None:
            self._closing = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._closing:
            self._closing.cancel()
            self._closing = None


class AtMost:
    """Lets so many requests through at once; the others wait for their turn and are not read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.turns = app, asyncio.Semaphore(most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on in its turn."""
        async with self.turns:
            await self.app(scope, receive, send)
