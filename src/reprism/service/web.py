"""The page's files, and the headers that keep a browser from loading or showing anything else."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, HTTPException, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Answers are about people: no cache may keep them.
    "Cache-Control": "no-store",
}

_PAGE = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}

page = APIRouter(include_in_schema=False)


@page.get("/")
def index() -> Response:
    """The page."""
    return _file("index.html")


@page.get("/page.css")
def style() -> Response:
    """How it looks."""
    return _file("page.css")


@page.get("/page.js")
def script() -> Response:
    """What it does."""
    return _file("page.js")


def _file(name: str) -> Response:
    try:
        content = (files("reprism.service") / "page" / name).read_bytes()
    except FileNotFoundError:
        raise HTTPException(404, f"the page's {name} is not installed; the API works without it") from None
    return Response(content, media_type=_PAGE[name])


class SafeHeaders:
    """Adds ``HEADERS`` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
