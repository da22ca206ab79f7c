"""Tokens across services, for any ASGI framework: what one request has written, the next one sees, whichever process it meets.

The token of a request comes in a header, and the answer bears the token of all that was written for it. Whoever calls
carries it on: a browser's script, the next service, a job's argument. No library is needed, so this needs no extra.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pgfleet.client.fleet import Fleet
from pgfleet.errors import TokenUnreadable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = "X-Pgfleet-Token"


class TokenMiddleware:
    """Around an ASGI application; of FastAPI and Starlette by ``app.add_middleware(TokenMiddleware, fleet=fleet)``.

    Everything that the application does for one request shares one token, in whatever tasks and threads it does it. A token
    that cannot be read is answered by 400: to go on without it could show the caller less than it has written.

    :param fleet: made by :func:`pgfleet.connect`; it is open while the application runs.
    :param header: of the request and of the answer.
    """

    def __init__(self, app: App, *, fleet: Fleet, header: str = HEADER) -> None:
        self._app, self._fleet, self._name = app, fleet, header.lower().encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == self._name), b"").decode("latin-1")
        try:
            after = self._fleet.after(given, alone=True)
        except TokenUnreadable as error:
            await _answer(send, 400, error.to_json())
            return

        async def send_with_token(message: Message) -> None:
            if message["type"] == "http.response.start":
                token = self._fleet.token()
                if token.positions:
                    message["headers"] = [*message.get("headers", ()), (self._name, str(token).encode("ascii"))]
            await send(message)

        with after:
            await self._app(scope, receive, send_with_token)


async def _answer(send: Send, status: int, document: object) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
