"""Access: tokens with scopes, and the protection of a service without tokens."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

Scope = Literal["search", "write", "erase", "link"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

TOKENS_VARIABLE = "REPRISM_TOKENS"
"""The environment variable that tokens may stand in, as in a file."""

LOCAL_HOSTS = ("127.0.0.1", "::1")
"""Addresses that a service without tokens may listen on: this machine's own."""

_LOCAL_AUTHORITY = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
"""A Host header, in lower case, by which a browser reaches this machine itself."""

_SHORTEST = 16  # characters of a token
_LONGEST_NAME = 64

_log = logging.getLogger(__name__)


class AccessError(ValueError):
    """The tokens cannot be read, or do not suffice; the message says why and what to do."""


@dataclass(frozen=True)
class Holder:
    """Someone who was given a token.

    Attributes:
        name: As the audit log calls them.
        digest: SHA-256 of the token, which itself is kept nowhere.
        scopes: Permitted actions.
    """

    name: str
    digest: bytes
    scopes: frozenset[Scope]


LOCAL = Holder("local", b"", frozenset(SCOPES))
"""Whoever uses a service that asks for no tokens: anyone on this machine."""


@dataclass(frozen=True)
class Access:
    """Everyone who may use the service; without holders, anyone on this machine may do anything."""

    holders: tuple[Holder, ...] = ()

    @property
    def tokens(self) -> bool:
        """True if tokens are asked for."""
        return bool(self.holders)

    def holder_of(self, authorization: str | None) -> Holder | None:
        """Return the holder of an ``Authorization`` header (``Bearer TOKEN``); None if it is of nobody known.

        All digests are compared, each in constant time: how long it takes tells nothing about any token.
        """
        if not self.tokens:
            return LOCAL
        scheme, _, token = (authorization or "").partition(" ")
        digest = digest_of(token.strip())
        found = None
        for holder in self.holders:
            if hmac.compare_digest(holder.digest, digest):
                found = holder
        return found if scheme.lower() == "bearer" else None

    @classmethod
    def from_toml(cls, text: str, name: str) -> Access:
        """Read tokens; the text is called ``name`` in errors.

        A table for each holder::

            [alice]
            token = "…"                     # or sha256 = "…", its digest in hexadecimal
            scopes = ["search", "write"]    # of search, write, erase, link

        Raises:
            AccessError: It is no TOML, names nobody, or has a holder without a good token or scopes.
        """
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise AccessError(f"{name} is no TOML: {error}") from None
        holders = [_holder(who, facts, name) for who, facts in tables.items()]
        if not holders:
            raise AccessError(f"{name} names nobody: give each holder a table with token and scopes")
        if len({holder.digest for holder in holders}) < len(holders):
            raise AccessError(f"{name} gives the same token to two holders: the audit log could not tell them apart")
        return cls(tuple(holders))

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Access:
        """Read tokens from a file (:meth:`from_toml`).

        Raises:
            AccessError: As of :meth:`from_toml`; or everyone on this machine can read or write the file.
            OSError: It cannot be read.
        """
        mode = Path(path).stat().st_mode
        if os.name == "posix" and mode & (stat.S_IROTH | stat.S_IWOTH):
            raise AccessError(
                f"everyone on this machine can read or write {path}, which holds tokens: chmod 600 {path}"
            )
        return cls.from_toml(Path(path).read_text(encoding="utf-8"), str(path))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Access:
        """Read the tokens in ``REPRISM_TOKENS``: ``alice = {token = "…", scopes = ["search"]}``; none if unset."""
        text = environment.get(TOKENS_VARIABLE, "")
        return cls.from_toml(text, TOKENS_VARIABLE) if text.strip() else cls()


def digest_of(token: str) -> bytes:
    """SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _holder(who: str, facts: Any, name: str) -> Holder:
    if not who or len(who) > _LONGEST_NAME or not who.isprintable():
        raise AccessError(f"{name}: {who!r} is no holder's name: expected 1 to {_LONGEST_NAME} printable characters")
    if not isinstance(facts, dict) or set(facts) - {"token", "sha256", "scopes"}:
        raise AccessError(f"{name}: {who} is to be a table with scopes and either token or sha256, and nothing else")
    scopes = facts.get("scopes")
    if not isinstance(scopes, list) or not scopes or not set(map(str, scopes)) <= set(SCOPES):
        raise AccessError(f"{name}: the scopes of {who} are to be a list of some of {', '.join(SCOPES)}")
    match facts.get("token"), facts.get("sha256"):
        case str(token), None:
            if len(token) < _SHORTEST or not token.isascii() or any(c.isspace() for c in token):
                raise AccessError(
                    f"{name}: the token of {who} could be guessed: expected at least {_SHORTEST} ASCII characters "
                    "without spaces. Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
                )
            digest = digest_of(token)
        case None, str(text) if len(text) == 64 and set(text.lower()) <= set("0123456789abcdef"):
            digest = bytes.fromhex(text)
        case _:
            raise AccessError(f"{name}: {who} is to have either a token or its sha256 (64 hexadecimal digits)")
    return Holder(who, digest, frozenset(scopes))


def check_host(host: str, access: Access) -> None:
    """Refuse to listen where others could come in without a token.

    Raises:
        AccessError: There are no tokens, and ``host`` is not this machine's own address.
    """
    if not access.tokens and host not in LOCAL_HOSTS:
        raise AccessError(
            f"without tokens anyone who reaches {host} could search and erase: give --tokens FILE (or set "
            f"{TOKENS_VARIABLE}), or keep to --host {LOCAL_HOSTS[0]}"
        )


# ---- requests --------------------------------------------------------------------------------------------

_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token that has the endpoint's scope: search, write or erase; and link for people, and for searches "
    "by times.",
)


def requires(access: Access, scope: Scope) -> Callable[..., None]:
    """Make a dependency that admits holders of a scope, and records them in ``request.state.holder``."""

    def anyone(request: Request) -> None:
        request.state.holder = LOCAL

    def holders(request: Request, _documented: Annotated[Any, Depends(_BEARER)]) -> None:
        holder = access.holder_of(request.headers.get("authorization"))
        if holder is None:
            raise HTTPException(
                401, "expected a token: Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"}
            )
        require_scope(holder, scope)
        request.state.holder = holder

    return holders if access.tokens else anyone


def require_scope(holder: Holder, scope: Scope, why: str = "") -> None:
    """Refuse a holder who lacks a scope.

    Args:
        holder: Whoever asks.
        scope: What they need.
        why: What for, added to the answer.

    Raises:
        HTTPException: 403: they lack it.
    """
    if scope not in holder.scopes:
        _log.warning("%s was refused: their token has not the scope %s", holder.name, scope)
        raise HTTPException(403, f"this token has not the scope {scope}{why}")


class LocalOnly:
    """Keeps other sites' pages, opened in a browser on this machine, away from a service that asks for no token.

    They could reach it by their own name, pointed at 127.0.0.1 (DNS rebinding): the Host header tells. And they could
    send it requests without seeing the answers: Origin and Sec-Fetch-Site, which browsers add, tell.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer 403, or pass the request on."""
        if scope["type"] == "http" and (reason := self._refusal(Headers(scope=scope))) is not None:
            return await JSONResponse({"detail": reason}, 403)(scope, receive, send)
        return await self.app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        hosts = [host.lower() for host in headers.getlist("host")]
        if len(hosts) != 1 or not _LOCAL_AUTHORITY.fullmatch(hosts[0]):
            return "without tokens this service answers only to localhost: it was reached by another name"
        own = (f"http://{hosts[0]}", f"https://{hosts[0]}")
        foreign = any(origin.lower() not in own for origin in headers.getlist("origin"))
        # A link on another page may lead here; nothing else of its may.
        elsewhere = any(site not in ("none", "same-origin") for site in headers.getlist("sec-fetch-site"))
        if foreign or (elsewhere and headers.getlist("sec-fetch-mode") != ["navigate"]):
            return "without tokens this service takes no requests from other sites' pages"
        return None
