"""The pages' files, and the headers that keep a browser from loading or showing anything else."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath

from fastapi import APIRouter, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
        "connect-src 'self'; "
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

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


_ADDRESSES = {"index.html": "/", "docs.html": "/docs"}
_SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")


def page_routes() -> APIRouter:
    """Return the routes of the pages: a request chooses among known files, and names no path.

    The search page is at ``/``, the API's documentation at ``/docs``, and each file beside them at its name. Swagger UI
    comes from the package fastapi-offline, so that a browser loads nothing from elsewhere.
    """
    router = APIRouter(include_in_schema=False)
    folder, swagger = files("reprism.service") / "page", files("fastapi_offline") / "static"
    present = [*folder.iterdir()] if folder.is_dir() else []
    for file in [*present, *(swagger / name for name in _SWAGGER)]:
        if (kind := _TYPES.get(PurePath(file.name).suffix)) is not None:
            router.add_api_route(_ADDRESSES.get(file.name, f"/{file.name}"), _answer(file, kind))
    return router


def _answer(file: Traversable, kind: str) -> Callable[[], Response]:
    def answer() -> Response:
        return Response(file.read_bytes(), media_type=kind)

    return answer


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
