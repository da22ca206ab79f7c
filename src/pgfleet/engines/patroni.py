"""Patroni's REST: what changes something, and what is asked just before and after. Unsafe endpoints need a certificate."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

from pgfleet.errors import PatroniRefused, PatroniUnreachable

#: Patroni polls a stopping server once a second, and a quorum switchover takes some of those.
SWITCHOVER_TIMEOUT = 30.0


class PatroniRest:
    """One member's REST.

    :param tls: verifies the fleet's authority; with the operator's certificate for what changes something.
    """

    def __init__(self, url: str, tls: ssl.SSLContext, *, timeout: float = 5.0) -> None:
        self._url = url
        self._tls = tls
        self._timeout = timeout

    async def call(self, method: str, path: str, body: object = None, *, timeout: float | None = None) -> tuple[int, Any]:
        """Status and body (JSON where it is, text otherwise).

        :raises PatroniUnreachable: no answer within ``timeout`` seconds.
        """
        try:
            async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout or self._timeout) as http:
                answer = await http.request(method, self._url + path, json=body)
        except (httpx.TransportError, OSError) as error:
            raise PatroniUnreachable(f"Patroni at {self._url} does not answer {method} {path}", seen=[repr(error)]) from None
        kind = answer.headers.get("content-type", "")
        return answer.status_code, answer.json() if kind.startswith("application/json") else answer.text

    async def change(self, method: str, path: str, body: object, *, timeout: float | None = None) -> Any:
        """Like :meth:`call`, and anything but 2xx is an error.

        :raises PatroniRefused: it said no.
        """
        status, answer = await self.call(method, path, body, timeout=timeout)
        if not 200 <= status < 300:
            raise PatroniRefused(f"Patroni said no to {method} {path}", seen=[f"{status}: {str(answer).strip()[:500]}"])
        return answer

    async def patch_configuration(self, change: object) -> Any:
        """Change the shard's dynamic configuration; None removes a key."""
        return await self.change("PATCH", "/config", change)

    async def switchover(self, primary: str, candidate: str | None) -> str:
        """Planned change of the primary; returns when Patroni says that it is done."""
        body = {"leader": primary} | ({"candidate": candidate} if candidate else {})
        return str(await self.change("POST", "/switchover", body, timeout=SWITCHOVER_TIMEOUT)).strip()

    async def restart(self) -> str:
        """Restart this member's PostgreSQL where a changed setting waits for it; a member that restarted meanwhile (as the old
        primary does in a switchover) has nothing to do."""
        status, answer = await self.call("POST", "/restart", {"restart_pending": True}, timeout=60.0)
        text = str(answer).strip()
        if not 200 <= status < 300 and "restart conditions are not satisfied" not in text:
            raise PatroniRefused("Patroni said no to POST /restart", seen=[f"{status}: {text[:500]}"])
        return text
