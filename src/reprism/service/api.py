"""The app: endpoints, errors and headers put together, and the service's life from start to end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.routing import Match

from reprism._version import __version__
from reprism.embedding import Embedder
from reprism.evaluation.calibration import Calibration, CalibrationError
from reprism.gallery.table import Gallery, GalleryError
from reprism.service import people_routes, routes
from reprism.service.access import Access, LocalOnly, requires
from reprism.service.audit import AuditError, AuditLog
from reprism.service.keeping_up import keep_up
from reprism.service.live import Live
from reprism.service.metrics import CountedApp, Metrics
from reprism.service.operations import Operations, UnavailableError
from reprism.service.people import People
from reprism.service.settings import ServiceSettings
from reprism.service.web import SafeHeaders, page_routes
from reprism.service.work import Admission, BusyError, GoneError

__all__ = ["ServiceSettings", "create_app"]

_RETRY_AFTER = 1  # seconds
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_CLIPS = 4
_LISTENERS, _OF_HOLDER = 64, 8
_CLIENT_GONE = 499  # as others log it; nobody reads the answer
_NOT_KEPT_UP = "outdated rows were not erased: %s"

_log = logging.getLogger(__name__)


def create_app(
    gallery: Gallery,
    embedder: Embedder,
    settings: ServiceSettings | None = None,
    calibration: Calibration | None = None,
    *,
    access: Access | None = None,
    audit: AuditLog | None = None,
) -> FastAPI:
    """Create the service of a gallery, an ASGI app.

    Args:
        gallery: Gallery to search, add to and erase from.
        embedder: Embedder with the gallery's model and settings, or with an export of the model: that searches, and
            additions are refused with 409.
        settings: Limits, and how long rows are kept.
        calibration: Gives matches their probability. If the gallery changes so that it no longer fits (compressed by
            another process, or tracklets among its images), searches are answered with 409.
        access: Tokens and their scopes. Without tokens anyone may do anything, from this machine alone.
        audit: Log of searches, additions and erasures.

    Raises:
        GalleryError: The embedder is of another model or of other settings than the gallery.
        CalibrationError: The calibration was fitted on other distances than the gallery's.
    """
    gallery.check(embedder, searching=True)
    if calibration is not None:
        gallery.check_calibration(calibration)
    settings, access = settings or ServiceSettings(), access or Access()
    metrics = Metrics()
    of_holder = settings.queue_per_holder or (settings.queue if len(access.holders) < 2 else -(-settings.queue // 4))
    admission = Admission(settings.queue, of_holder, metrics.refused.inc)
    # Places of their own: an erasure is not to wait until searches leave one.
    erasures = Admission(-(-settings.queue // 4), -(-of_holder // 4), metrics.refused.inc)
    # Few: each takes as much memory as a clip is large.
    clips = Admission(_CLIPS, _CLIPS if len(access.holders) < 2 else _CLIPS // 2, metrics.refused.inc)
    listeners = Admission(_LISTENERS, _LISTENERS if len(access.holders) < 2 else _OF_HOLDER, metrics.refused.inc)
    metrics.gauge("reprism_listeners", "Those who listen for rows that come in.", lambda: listeners.present)
    metrics.gauge(
        "reprism_requests_present", "Requests at work or waiting.", lambda: admission.present + erasures.present
    )
    metrics.gauge("reprism_gallery_rows", "Rows of the gallery; NaN while it cannot be read.", lambda: _rows(gallery))

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        operations = Operations(gallery, embedder, settings, audit, calibration, metrics.batches.observe)
        app.state.operations, app.state.live = operations, Live(operations)
        app.state.people = People(operations)
        try:
            await operations.upkeep()
        except (AuditError, UnavailableError) as error:
            _log.error(_NOT_KEPT_UP, error)
        tasks = [asyncio.create_task(work) for work in (_upkeep(operations), app.state.live.run())]
        if settings.link_seconds:
            tasks.append(asyncio.create_task(keep_up(operations, settings.link_seconds)))
        try:
            yield
        finally:
            app.state.live.close()
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(operations.close)

    app = FastAPI(
        title="Reprism",
        summary="Person re-identification: find a person in what other cameras saw.",
        version=__version__,
        lifespan=life,
        # FastAPI's own pages load scripts from elsewhere; /docs is among the page_routes.
        docs_url=None,
        redoc_url=None,
        # It would lead to whatever the Host header says.
        redirect_slashes=False,
    )
    app.state.access, app.state.metrics = access, metrics
    app.state.admission, app.state.erasures = admission, erasures
    app.state.clips, app.state.listeners = clips, listeners
    app.include_router(routes.open_to_all)
    app.include_router(routes.searching, dependencies=[Depends(requires(access, "search"))])
    app.include_router(
        people_routes.seeing, dependencies=[Depends(requires(access, scope)) for scope in ("search", "link")]
    )
    app.include_router(routes.writing, dependencies=[Depends(requires(access, "write"))])
    app.include_router(routes.erasing, dependencies=[Depends(requires(access, "erase"))])
    app.include_router(page_routes())
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(BusyError, _busy)
    app.add_exception_handler(405, _other_method)
    app.add_exception_handler(GoneError, _gone)
    app.add_exception_handler(CalibrationError, _uncalibrated)
    app.add_exception_handler(UnavailableError, _unavailable)
    app.add_exception_handler(AuditError, _not_noted)
    app.add_exception_handler(Exception, _failed)
    # The last is outermost.
    if not access.tokens:
        app.add_middleware(LocalOnly)
    app.add_middleware(SafeHeaders)
    app.add_middleware(CountedApp, metrics=metrics)
    return app


async def _upkeep(operations: Operations) -> None:
    while True:
        await asyncio.sleep(operations.settings.upkeep_seconds)
        try:
            await operations.upkeep()
        except (AuditError, UnavailableError) as error:  # it is tried again, and meanwhile the service serves
            _log.error(_NOT_KEPT_UP, error)
        except Exception:
            _log.exception(_NOT_KEPT_UP, "an unexpected error")


async def _invalid(_: Request, error: Any) -> Response:
    lines = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return JSONResponse({"detail": "; ".join(lines)}, 422)


def _rows(gallery: Gallery) -> float:
    try:
        return len(gallery)
    except (GalleryError, OSError, RuntimeError):
        return math.nan


async def _other_method(request: Request, _: Exception) -> Response:
    """Name all methods of an address, collected from several routes: the answer to OPTIONS."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)

    methods = [method for method in _METHODS if takes(method)]
    allow = {"Allow": ", ".join([*methods, "OPTIONS"])}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=allow)
    return JSONResponse({"detail": f"this address takes {' and '.join(methods)}"}, 405, allow)


async def _busy(_: Request, error: Any) -> Response:
    detail, status = "too many requests are waiting: try again in a moment", 503
    if error.of_holder:
        detail, status = "too many of your requests are under way: wait for their answers", 429
    return JSONResponse({"detail": detail}, status, {"Retry-After": str(_RETRY_AFTER)})


async def _uncalibrated(_: Request, error: Exception) -> Response:
    # What the client is told names no path of the server's.
    _log.error("%s", error)
    return JSONResponse({"detail": "the calibration no longer fits the gallery: calibrate it anew"}, 409)


async def _gone(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=_CLIENT_GONE)


async def _unavailable(_: Request, error: Exception) -> Response:
    _log.error("%s (%s)", error, " ".join(str(error.__cause__).split()))
    return JSONResponse({"detail": str(error)}, 503)


async def _not_noted(_: Request, error: Exception) -> Response:
    _log.error("a request was refused: %s", error)
    return JSONResponse({"detail": "the audit log cannot be written, so this was not done: see the service's log"}, 503)


async def _failed(_: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette logs it
    return JSONResponse({"detail": "the service failed at this request; its log says why"}, 500)
