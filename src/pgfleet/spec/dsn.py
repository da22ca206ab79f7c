"""The name of one PostgreSQL server: a URI, or keywords and values, as libpq reads them (PostgreSQL docs, 34.1.1).

Fewer parameters than libpq has: those that say where and who, and how the connection is protected. What would change the
meaning of a session is refused, not passed over. No message repeats a value: it may be the password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

#: ``off``: in the clear. ``require``: encrypted, to anybody. ``verify-ca``: an authority vouches. ``verify-full``: for its name.
Protection = Literal["off", "require", "verify-ca", "verify-full"]

PORT = 5432
_SCHEMES = ("postgresql://", "postgres://")
_LOOPBACK = re.compile(r"localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1|/.*", re.DOTALL)
_SAID: dict[str, Protection] = {
    "disable": "off", "require": "require", "verify-ca": "verify-ca", "verify-full": "verify-full",
}  # fmt: skip
#: Read, and left to pgfleet, which says each of them itself for every connection.
_OURS = frozenset({
    "application_name", "client_encoding", "connect_timeout", "fallback_application_name", "gssencmode", "keepalives",
    "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "sslcompression", "sslsni",
    "target_session_attrs", "tcp_user_timeout",
})  # fmt: skip
_READ = frozenset({"host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "channel_binding"})
_WHY_NOT = {
    "hostaddr": "the address is looked up for every connection; say `host` alone",
    "options": "session parameters belong to the role: ALTER ROLE … SET",
    "service": "a service file of this host says nothing on the next; write the DSN out",
    "passfile": "say the password in the DSN that `env:` or `file:` leads to",
    "sslcert": "client certificates are not supported; say a password",
    "sslkey": "client certificates are not supported; say a password",
}
# White space is C's: what else Unicode has of it is part of a value.
_SPACE = " \t\n\r\f\v"
_WORD = re.compile(
    r"\s*(?P<key>[^\s=]+)\s*=\s*+(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?P<plain>(?:[^\s'\\]|\\.)*))(?=\s|$)", re.DOTALL | re.ASCII
)
#: The word, of which a URI may write any letter by its number.
_PASSWORD = "".join(f"(?:{letter}|%{ord(letter):02x}|%{ord(letter.upper()):02x})" for letter in "password")
#: Where a password stands in what need not be well-formed: after a user and before an ``@``, or after its name. What is a
#: port before a path is none.
_HOLDS = re.compile(rf"://[^@/:\[]*:(?!\d+(?:[/?]|$))[^@]+@|{_PASSWORD}\s*=\s*[^\s&]", re.IGNORECASE | re.ASCII)
#: The same in a line of a file, rather too much of it than too little: to the last ``@``, to the end of the line.
_SHOWS = re.compile(
    rf"(://[^@:]*:)(.*(?=@)|(?!\d+[/?])[^/\s&'\"]+)|({_PASSWORD}\s*=\s*)(.+?)(?=['\"\]}}\s,]*$)", re.IGNORECASE | re.ASCII
)


class NotADsn(ValueError):
    """:param hint: what to write instead; empty where there is nothing to paste."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Dsn:
    """One server, and who connects to what on it.

    :param host: a name, an address, or the folder of a Unix socket.
    :param database: empty: the fleet's.
    :param authority: path of the certificates of authorities (``sslrootcert``); empty: the system's.
    """

    host: str
    user: str
    port: int = PORT
    database: str = ""
    password: str | None = field(default=None, repr=False)
    protection: Protection = "verify-full"
    authority: str = ""


def has_password(text: str) -> bool:
    """Whether ``text``, a DSN well-formed or not, holds one."""
    try:
        said = _said(text)
    except NotADsn:
        said = {}
    return bool(said.get("password") or said.get("sslpassword")) or _HOLDS.search(text) is not None


def without_password(line: str) -> str:
    """``line`` of a file, stars for what may be a password; every other character is where it was."""

    def hidden(found: re.Match[str]) -> str:
        before, secret = (found[1], found[2]) if found[1] else (found[3], found[4])
        return before + "*" * len(secret)

    return _SHOWS.sub(hidden, line)


def parse_dsn(text: str) -> Dsn:
    """:raises NotADsn: it is none, or one that says what pgfleet cannot do."""
    text = text.strip(_SPACE)  # a file's last line ends
    said = _said(text)
    if text.startswith(_SCHEMES) and any(sign in text for sign in _SPACE):
        raise NotADsn("a space in a URI is written %20")
    for key in said:
        if key in _WHY_NOT:
            raise NotADsn(f"a DSN with `{key}` cannot be used: {_WHY_NOT[key]}")
        if key not in _READ and key not in _OURS:
            # Not named: a password that nobody quoted is read as such, too.
            raise NotADsn("what stands before one of its `=` is not a parameter of a DSN", f"known: {', '.join(sorted(_READ))}")
    said = {key: value for key, value in said.items() if value}  # libpq: an empty value is the default
    host = said.get("host", "")
    if not host:
        raise NotADsn("a DSN names its host", "postgresql://USER@HOST:5432/DATABASE")
    if "," in host or "," in said.get("port", ""):
        raise NotADsn("a DSN names one server; this one names several", "a DSN for each: primary and replicas")
    if "user" not in said:
        raise NotADsn("a DSN names its user", "postgresql://USER@HOST:5432/DATABASE")
    protection, authority = _protection(said, host)
    return Dsn(host, said["user"], _port(said), said.get("dbname", ""), said.get("password"), protection, authority)


def _port(said: dict[str, str]) -> int:
    text = said.get("port", str(PORT))
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise NotADsn("its port is no number from 1 to 65535", str(PORT))
    return int(text)


def _protection(said: dict[str, str], host: str) -> tuple[Protection, str]:
    mode, authority = said.get("sslmode"), said.get("sslrootcert", "")
    if authority == "system":
        authority, mode = "", mode or "verify-full"
    if mode in ("allow", "prefer"):
        hint = "sslmode=require, verify-full or disable"
        raise NotADsn(f"`sslmode={mode}` leaves it to whoever is between whether anything is encrypted", hint)
    if mode is not None and mode not in _SAID:
        raise NotADsn("its sslmode is none that PostgreSQL knows", "sslmode=require, verify-ca, verify-full or disable")
    if host.startswith("/"):
        return "off", ""  # a Unix socket: there is nobody between
    if mode is None:
        # libpq would take what it gets (`prefer`), and so would whoever sits between: unsaid is verified, except on loopback.
        return ("off", "") if _LOOPBACK.fullmatch(host) and not authority else ("verify-full", authority)
    chosen = _SAID[mode]
    if chosen == "require" and authority:
        chosen = "verify-ca"  # as libpq does (docs, 34.19.1)
    if said.get("channel_binding") == "require" and chosen in ("require", "verify-ca"):
        # Bound to the channel is bound to the server. asyncpg cannot bind, so the server has to show who it is.
        chosen = "verify-full"
    if said.get("channel_binding") == "require" and chosen == "off":
        raise NotADsn("`channel_binding=require` needs TLS, and `sslmode=disable` forbids it", "sslmode=verify-full")
    return chosen, authority if chosen in ("verify-ca", "verify-full") else ""


def _said(text: str) -> dict[str, str]:
    text = text.strip(_SPACE)
    return _uri(text) if text.startswith(_SCHEMES) else _words(text)


def _uri(text: str) -> dict[str, str]:
    """As ``conninfo_uri_parse_options`` in libpq's fe-connect.c reads it: who is what stands before the first ``@``, if no ``/``
    does."""
    rest = text.partition("://")[2]
    said: dict[str, str] = {}
    if who := re.match(r"[^@/]*@", rest):
        rest = rest[who.end() :]
        user, _, password = who[0][:-1].partition(":")
        said |= {"user": _decoded(user), "password": _decoded(password)}
    place = re.match(r"(?:\[[^\]]*\])?[^/?]*", rest)
    assert place is not None  # noqa: S101 - it may be empty
    said |= _place(place[0])
    path, _, query = rest[place.end() :].partition("?")
    said["dbname"] = _decoded(path[1:])
    pairs = query.split("&")
    for pair in pairs if pairs[-1] else pairs[:-1]:
        key, equals, value = pair.partition("=")
        if not equals or not key or "=" in value:
            raise NotADsn("what follows its `?` is not a list of name=value")
        key, value = _decoded(key), _decoded(value)
        if (key, value) == ("ssl", "true"):  # JDBC's word, which libpq takes too
            key, value = "sslmode", "require"
        said[key] = value
    return said


def _place(text: str) -> dict[str, str]:
    if "," in text:
        return {"host": text}
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or not host:
            raise NotADsn("an IPv6 address stands in brackets: [::1]:5432")
        return {"host": _decoded(host)} | ({"port": _decoded(port[1:])} if port[1:] else {})
    host, _, port = text.partition(":")
    return ({"host": _decoded(host)} if host else {}) | ({"port": _decoded(port)} if port else {})


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise NotADsn("a `%` in a DSN is followed by two hexadecimal digits; the sign itself is %25")
    try:
        decoded = re.sub(
            rb"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode("utf-8", "surrogateescape")
        ).decode()
    except UnicodeDecodeError:
        raise NotADsn("what its `%` signs stand for is not UTF-8") from None
    if "\0" in decoded:
        raise NotADsn("a DSN cannot hold a NUL byte")
    return decoded


def _words(text: str) -> dict[str, str]:
    if "=" not in text:
        raise NotADsn("this is no DSN", "postgresql://USER@HOST:5432/DATABASE")
    if "\0" in text:
        raise NotADsn("a DSN cannot hold a NUL byte")
    said: dict[str, str] = {}
    at = 0
    while text[at:].strip(_SPACE):
        word = _WORD.match(text, at)
        if word is None:
            raise NotADsn("a DSN is a URI, or keywords and values: host=… port=… user=… dbname=…")
        value = word["plain"] if word["quoted"] is None else word["quoted"]
        said[word["key"]] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        at = word.end()
    return said
