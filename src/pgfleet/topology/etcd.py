"""etcd through its JSON gateway: keys, leases, one watch at a time, and the trouble of being a client of several members.

The gateway (etcd docs, "gRPC gateway") speaks base64 for keys and values and writes int64 as JSON strings; fields that
are zero are left out. Everything here has a deadline except a watch, whose silence proves nothing: its caller reopens it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import httpx

from pgfleet.errors import EtcdRefused, EtcdUnreachable

# gRPC status codes (grpc/codes) that say "this member cannot now", not "no".
_TROUBLE = {4, 14}  # DEADLINE_EXCEEDED, UNAVAILABLE: no leader, request timed out, leader changed
# What etcd says about a token that another one would cure (api/v3rpc/rpctypes/error.go). Simple tokens end five minutes
# after their last use and when the member restarts.
_STALE_TOKEN = (
    "invalid auth token",
    "user name is empty",
    "revision of auth store is old",
    "revision in header is old",
)
_AUTH_IS_OFF = "authentication is not enabled"


@dataclass(frozen=True, slots=True)
class KeyValue:
    """:param lease: the lease the key hangs on; 0 = none."""

    key: str
    value: str
    lease: int = 0
    mod_revision: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Range:
    """What was read, and the store's revision at that moment: a watch from ``revision + 1`` misses nothing."""

    revision: int
    kvs: tuple[KeyValue, ...]

    @property
    def first(self) -> KeyValue | None:
        return self.kvs[0] if self.kvs else None


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """:param revision: of the change; reopen a watch at ``revision + 1`` to resume behind it."""

    kind: Literal["put", "delete"]
    key: str
    value: str
    lease: int
    revision: int


class _StaleToken(Exception):
    pass


class EtcdClient:
    """One client of all members; it stays with a member that answers and goes to the next when it does not.

    :param endpoints: URLs, the nearest first.
    :param tls: None for plain http (tests only).
    :param timeout: seconds for a whole call, retries and authentication included; an attempt gets half of it while
        there are other members to ask.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: ssl.SSLContext | None = None,
        user: str | None = None,
        password: str | None = None,
        timeout: float = 2.0,
    ) -> None:
        if not endpoints:
            raise ValueError("no endpoints")
        self._endpoints = tuple(e.rstrip("/") for e in endpoints)
        self._now_at = 0
        self._user, self._password = user, password
        self._token: str | None = None
        self._authenticating = asyncio.Lock()
        self._timeout = timeout
        # trust_env=False: a proxy for the web is none for etcd. Idle connections are kept: a new one costs a TLS handshake.
        self._http = httpx.AsyncClient(
            verify=tls if tls is not None else False,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=60.0),
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- keys -----------------------------------------------------------------------------------------------------------

    async def range(self, key: str, *, prefix: bool = False) -> Range:
        """The key, or every key that starts with it, in order."""
        answer = await self.call("kv/range", _span(key, prefix))
        kvs = tuple(_key_value(kv) for kv in answer.get("kvs", ()))
        return Range(int(answer["header"]["revision"]), kvs)

    async def put(self, key: str, value: str, lease: int = 0) -> int:
        """:returns: the revision of the change."""
        body = {"key": _encode(key), "value": _encode(value)} | ({"lease": str(lease)} if lease else {})
        return int((await self.call("kv/put", body))["header"]["revision"])

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        """:returns: how many keys there were."""
        return int((await self.call("kv/deleterange", _span(key, prefix))).get("deleted", 0))

    async def txn_swap(self, key: str, expected_mod_revision: int, value: str, lease: int = 0) -> bool:
        """Write if the key is still at that revision (0: absent). False: somebody was quicker.

        :raises EtcdUnreachable: also when it may have happened (the answer was lost): read the key again.
        """
        at = {"key": _encode(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(expected_mod_revision)}
        put = {"key": _encode(key), "value": _encode(value)} | ({"lease": str(lease)} if lease else {})
        body = {"compare": [at], "success": [{"request_put": put}]}
        return bool((await self.call("kv/txn", body, again=False)).get("succeeded", False))

    # -- leases ---------------------------------------------------------------------------------------------------------

    async def lease_grant(self, ttl: int) -> int:
        """:param ttl: seconds; etcd raises it to its floor (1.5 election timeouts)."""
        return int((await self.call("lease/grant", {"TTL": str(ttl)}))["ID"])

    async def lease_keepalive(self, lease: int) -> int:
        """:returns: seconds the lease has now; 0 = it is gone."""
        answer = await self.call("lease/keepalive", {"ID": str(lease)})
        return int(answer.get("result", {}).get("TTL", 0))

    async def lease_revoke(self, lease: int) -> bool:
        """End the lease and every key on it. False: it was gone already."""
        try:
            await self.call("lease/revoke", {"ID": str(lease)})
        except EtcdRefused as no:
            if "lease not found" in no.message:
                return False
            raise
        return True

    # -- the wire -------------------------------------------------------------------------------------------------------

    async def call(self, path: str, body: Mapping[str, Any], *, again: bool = True) -> dict[str, Any]:
        """POST ``body`` to ``/v3/{path}`` of a member that answers.

        :param again: whether it may be sent a second time when the first answer was lost.
        :raises EtcdUnreachable: no member answered in time.
        :raises EtcdRefused: etcd said no.
        """
        seen: list[str] = []
        try:
            async with asyncio.timeout(self._timeout):
                for attempt in range(2 * len(self._endpoints)):
                    endpoint = self._endpoints[self._now_at]
                    try:
                        return await self._authenticated(endpoint, path, body)
                    except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # never sent
                        seen.append(_trouble(endpoint, error))
                    except (httpx.TransportError, EtcdUnreachable) as error:
                        seen.append(_trouble(endpoint, error))
                        if not again:
                            break
                    self._go_on(endpoint)
                    if attempt + 1 >= len(self._endpoints):  # all were asked: an election takes a moment
                        await asyncio.sleep(0.1)
        except TimeoutError:
            seen.append(f"no answer within {self._timeout:g} s")
        raise EtcdUnreachable(f"etcd did not answer {path}", seen=seen) from None

    async def watch(
        self, key: str, *, prefix: bool = True, start_revision: int = 0, idle: float | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes below ``key``, from ``start_revision`` on (0: from now). One stream, of one member; it ends by an error.
        Who leaves the loop early closes it (``contextlib.aclosing``), or its connection stays open for a while.

        :param idle: seconds of silence after which it ends too, so that its caller opens it at another member: one that
            was stopped is never noticed otherwise. None: wait for ever.
        :raises EtcdUnreachable: the stream broke, lost its quorum, or starts before what etcd still remembers: read
            the prefix again and watch from there.
        """
        create: dict[str, Any] = _span(key, prefix)
        if start_revision:
            create["start_revision"] = str(start_revision)
        endpoint = self._endpoints[self._now_at]
        try:
            async with asyncio.timeout(self._timeout):
                token = await self._have_token(endpoint)
            # hasleader ends a watch whose member lost its quorum (4.2 s measured); without it such a watch is silent.
            headers = {"Grpc-Metadata-hasleader": "true"} | ({"Authorization": token} if token else {})
            async with self._http.stream(
                "POST", f"{endpoint}/v3/watch", json={"create_request": create}, headers=headers,
                timeout=httpx.Timeout(self._timeout, read=idle),
            ) as response:  # fmt: skip
                async for line in response.aiter_lines():
                    for event in self._watched(endpoint, line):
                        yield event
            raise EtcdUnreachable("etcd ended a watch", seen=[endpoint])
        except (httpx.TransportError, TimeoutError) as error:
            self._go_on(endpoint)
            raise EtcdUnreachable("a watch of etcd broke", seen=[_trouble(endpoint, error)]) from None
        except EtcdUnreachable:
            self._go_on(endpoint)
            raise

    def _watched(self, endpoint: str, line: str) -> list[WatchEvent]:
        try:
            answer = json.loads(line)
            error = answer.get("error")
        except (ValueError, AttributeError):
            raise EtcdUnreachable("not etcd's answer", seen=[f"{endpoint}: {line[:80]!r}"]) from None
        if error is not None:
            message = error.get("message", "") if isinstance(error, dict) else str(error)
            if any(words in message for words in _STALE_TOKEN):
                self._token = None
            raise EtcdUnreachable("etcd ended a watch", seen=[f"{endpoint}: {message}"])
        result = answer["result"]
        if result.get("canceled"):
            # A token that has become invalid is reported here as "permission denied" (etcd 3.4, isWatchPermitted).
            self._token = None
            why = result.get("cancel_reason") or f"compacted up to {result.get('compact_revision', '?')}"
            raise EtcdUnreachable("etcd cancelled a watch", seen=[f"{endpoint}: {why}"])
        return [_watch_event(event) for event in result.get("events", ())]

    def _go_on(self, endpoint: str) -> None:
        if self._endpoints[self._now_at] == endpoint:  # else another call has gone on already
            self._now_at = (self._now_at + 1) % len(self._endpoints)

    async def _authenticated(self, endpoint: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        for last in (False, True):
            token = await self._have_token(endpoint)
            try:
                return await self._post(endpoint, path, body, token)
            except _StaleToken as stale:
                if last or self._user is None:
                    raise EtcdRefused(f"etcd: {stale}") from None
                if self._token == token:
                    self._token = None
        raise AssertionError("unreachable")

    async def _have_token(self, endpoint: str) -> str | None:
        if self._user is None or self._token is not None:
            return self._token
        async with self._authenticating:
            if self._token is None:
                who = {"name": self._user, "password": self._password or ""}
                try:
                    answer = await self._post(endpoint, "auth/authenticate", who, None)
                except EtcdRefused as no:
                    if _AUTH_IS_OFF in no.message:  # not enabled yet: during the fleet's first minutes
                        return None
                    raise
                self._token = str(answer["token"])
            return self._token

    async def _post(self, endpoint: str, path: str, body: Mapping[str, Any], token: str | None) -> dict[str, Any]:
        share = self._timeout / 2 if len(self._endpoints) > 1 else self._timeout
        response = await self._http.post(
            f"{endpoint}/v3/{path}", json=body, headers={"Authorization": token} if token else {}, timeout=share
        )
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            raise EtcdUnreachable(f"not etcd's answer: HTTP {response.status_code}", seen=[endpoint]) from None
        if response.status_code == 200 and "error" not in answer:
            return answer
        error = answer.get("error", "")
        message = error.get("message", "") if isinstance(error, dict) else str(error)
        code = int(error.get("grpc_code", 0) if isinstance(error, dict) else answer.get("code", 0))
        if any(words in message for words in _STALE_TOKEN):
            raise _StaleToken(message)
        if code in _TROUBLE:
            raise EtcdUnreachable(message, seen=[endpoint])
        raise EtcdRefused(f"etcd: {message or f'HTTP {response.status_code}'}", seen=[f"{path} at {endpoint}"])


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()


def _span(key: str, prefix: bool) -> dict[str, Any]:
    if not prefix:
        return {"key": _encode(key)}
    start = key.encode() or b"\0"
    # The end of a prefix is the prefix with its last byte one higher (etcd, clientv3.GetPrefixRangeEnd); UTF-8 has no 0xff.
    end = start[:-1] + bytes([start[-1] + 1]) if key else b"\0"
    return {"key": base64.b64encode(start).decode(), "range_end": base64.b64encode(end).decode()}


def _key_value(raw: Mapping[str, Any]) -> KeyValue:
    return KeyValue(
        key=_decode(raw["key"]), value=_decode(raw.get("value", "")), lease=int(raw.get("lease", 0)),
        mod_revision=int(raw.get("mod_revision", 0)), version=int(raw.get("version", 0)),
    )  # fmt: skip


def _watch_event(raw: Mapping[str, Any]) -> WatchEvent:
    kv = _key_value(raw["kv"])
    kind: Literal["put", "delete"] = "delete" if raw.get("type") == "DELETE" else "put"  # PUT is zero: left out
    return WatchEvent(kind, kv.key, kv.value, kv.lease, kv.mod_revision)


def _trouble(endpoint: str, error: BaseException) -> str:
    return f"{endpoint}: {getattr(error, 'message', None) or str(error) or type(error).__name__}"
