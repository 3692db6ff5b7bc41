"""The endpoints, by the scope that they need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Collection
from contextlib import AbstractContextManager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError
from starlette.convertors import Convertor, register_url_convertor

from reprism.gallery.arrivals import MARK, Mark
from reprism.gallery.search import Match
from reprism.linking.network_search import TimedMatch
from reprism.service import schemas
from reprism.service.access import Access, Holder, require_scope
from reprism.service.audit import AuditError
from reprism.service.live import Listener, Live
from reprism.service.metrics import CONTENT_TYPE, Metrics
from reprism.service.operations import Operations
from reprism.service.ranges import answer_range
from reprism.service.rows import facts_of
from reprism.service.schemas import EVENT_ID, ImageFacts, Name, RowId, SearchQuery, form, problem, problems
from reprism.service.uploads import Upload, read_upload
from reprism.service.work import Admission, unless_gone

R = TypeVar("R")

_HEALTHY_WITHIN = 10.0  # seconds

_log = logging.getLogger(__name__)


def _operations(request: Request) -> Operations:
    return request.app.state.operations


def _holder(request: Request) -> Holder:
    return request.state.holder


def _place(request: Request) -> AbstractContextManager[None]:
    admission: Admission = request.app.state.admission
    return admission.admit(_holder(request).name)


def _place_to_erase(request: Request) -> AbstractContextManager[None]:
    admission: Admission = request.app.state.erasures
    return admission.admit(_holder(request).name)


async def _place_for_clip(request: Request) -> AsyncIterator[None]:
    # Until it is sent: a clip that is read slowly takes memory as long.
    admission: Admission = request.app.state.clips
    with admission.admit(_holder(request).name):
        yield


Place = Annotated[AbstractContextManager[None], Depends(_place)]
PlaceToErase = Annotated[AbstractContextManager[None], Depends(_place_to_erase)]


async def _listener(
    request: Request,
    camera: Annotated[list[Name], Query(max_length=100, description="Only rows of these cameras.")] = [],  # noqa: B006
    last_event_id: Annotated[
        str, Header(pattern=f"^({MARK})?$", description="The id of the last event that was seen.", examples=[EVENT_ID])
    ] = "",
) -> AsyncIterator[Listener]:
    live: Live = request.app.state.live
    listeners: Admission = request.app.state.listeners
    with listeners.admit(_holder(request).name):
        listener = await live.join(camera, Mark.parse(last_event_id) if last_event_id else None)
        try:
            yield listener
        finally:
            live.leave(listener)


Listening = Annotated[Listener, Depends(_listener)]
PlaceForClip = Annotated[None, Depends(_place_for_clip)]
Work = Annotated[Operations, Depends(_operations)]
Who = Annotated[Holder, Depends(_holder)]
Id = Annotated[RowId, Path(description="A row's id.")]
Number = Annotated[int, Path(description="Which of them, from 0.", ge=0, le=2**31 - 1)]
Identity = Annotated[str, Path(description="An identity.", min_length=1, examples=["ada"])]
"""Text of any length: what was indexed from a table has no limit."""


class _AnyName(Convertor[str]):
    """The rest of a path, line breaks included. Starlette's ``path`` ends before them: ``ada%0A`` would be ``ada``."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _AnyName())

open_to_all = APIRouter()
searching = APIRouter(responses=problems(401, 403))
writing = APIRouter(responses=problems(401, 403))
erasing = APIRouter(responses=problems(401, 403))


# ---- without a token -------------------------------------------------------------------------------------


@open_to_all.get("/healthz", tags=["service"], responses=problems(503))
async def healthz(work: Work) -> schemas.Health:
    """Tell whether the service runs and can read its gallery."""
    try:
        await asyncio.wait_for(work.read(lambda: len(work.gallery)), _HEALTHY_WITHIN)
    except TimeoutError:
        raise HTTPException(503, f"the gallery could not be read within {_HEALTHY_WITHIN:g} seconds") from None
    return schemas.Health()


@open_to_all.get("/session", tags=["service"], responses=problems(401, 503))
async def session(request: Request, work: Work) -> schemas.Session:
    """Tell what the caller may do: nothing without a token, where tokens are needed."""
    access: Access = request.app.state.access
    authorization = request.headers.get("authorization")
    holder = access.holder_of(authorization)
    if holder is None and authorization is not None:
        raise HTTPException(401, "this token is unknown", headers={"WWW-Authenticate": "Bearer"})
    scopes = sorted(holder.scopes) if holder is not None else []
    cameras = list((await work.read(work.gallery.stats))["cameras"]) if "search" in scopes else []
    may_link = {"search", "link"} <= {*scopes}
    times = await work.times_between() if may_link else []
    people = may_link and await work.read(lambda: work.gallery.linking() is not None)
    return schemas.Session(scopes=scopes, tokens=access.tokens, cameras=cameras, times=times, people=people)


# ---- search ----------------------------------------------------------------------------------------------


@searching.post("/search", tags=["search"], responses=problems(408, 409, 413, 415, 422, 429, 503), openapi_extra=form())
async def search(
    request: Request, place: Place, work: Work, who: Who, query: Annotated[SearchQuery, Query()]
) -> schemas.SearchAnswer:
    """Find the rows that look like a picture; with ``times`` by the time between the cameras too."""
    if query.times:
        require_scope(who, "link", ", which a search by the times between cameras takes")
    if query.contradiction is not None:
        raise HTTPException(409, query.contradiction)
    with place:
        upload = await _upload(request, work, ())
        found = await unless_gone(request, work.search(upload, query, who.name))
    matches = [
        schemas.Match(**facts_of(match, found.pictures[match.id]), **_measures(match)) for match in found.matches
    ]
    return schemas.SearchAnswer(
        matches=matches, seconds=schemas.Seconds(embed=found.embed_seconds, search=found.search_seconds)
    )


@searching.get("/images/{id}", tags=["gallery"], responses=problems(404, 422, 429, 503))
async def image(place: Place, work: Work, id: Id) -> schemas.Image:  # noqa: A002 - what it is called outside
    """Return what is known of a row."""
    with place:
        row, pictures = await _found(id, work.image(id))
    return schemas.Image(**facts_of(row, pictures))


@searching.get(
    "/images/{id}/thumbnail",
    tags=["gallery"],
    response_class=Response,
    responses=problems(404, 422, 429, 503) | {200: {"content": {"image/jpeg": {}}, "description": "A small picture"}},
)
async def thumbnail(place: Place, work: Work, id: Id) -> Response:  # noqa: A002
    """Return a row's small picture."""
    with place:
        content = await _found(id, work.read(lambda: work.gallery.thumbnail(id)))
    if content is None:
        raise HTTPException(404, f"of the image {id} no picture was kept")
    return Response(content, media_type="image/jpeg")


@searching.get(
    "/images/{id}/strip/{number}",
    tags=["gallery"],
    response_class=Response,
    responses=problems(404, 422, 429, 503) | {200: {"content": {"image/jpeg": {}}, "description": "A small picture"}},
)
async def strip(place: Place, work: Work, id: Id, number: Number) -> Response:  # noqa: A002
    """Return one of a tracklet's small pictures, which are numbered from 0 in the order of time."""
    with place:
        pictures = await _found(id, work.read(lambda: work.gallery.strip(id)))
    if number >= len(pictures):
        raise HTTPException(404, f"of the image {id} a strip of {len(pictures)} pictures was kept, numbered from 0")
    return Response(pictures[number], media_type="image/jpeg")


@searching.get(
    "/images/{id}/clip",
    tags=["gallery"],
    response_class=Response,
    responses=problems(404, 422, 429, 503)
    | {
        200: {"content": {"video/mp4": {}}, "description": "All of it"},
        206: {"content": {"video/mp4": {}}, "description": "The bytes that Range asks for"},
        415: problem("The video cannot be played", "clips are made of H.264 in MP4 only, and this video is not"),
        416: {"description": "Range asks for bytes beyond its end"},
    },
)
async def clip(
    request: Request,
    _place: PlaceForClip,
    work: Work,
    who: Who,
    id: Id,  # noqa: A002
) -> Response:
    """Return the seconds of a video around a sighting, from 2 s before it to 2 s after, where the video may be shown.

    ``Range`` is answered with a part. What lies between the key frame before and the begin is in the file, and not
    shown.
    """
    content = await unless_gone(request, _found(id, work.clip(id, who.name)))
    return answer_range(content, request.headers, "video/mp4")


@searching.get(
    "/events",
    tags=["gallery"],
    response_class=EventSourceResponse,
    responses=problems(422, 429, 503)
    | {200: {"content": {"text/event-stream": {}}, "description": "Events, until either side ends"}},
)
async def events(listener: Listening, work: Work, who: Who) -> AsyncIterator[ServerSentEvent]:
    """Tell of rows as they come in, as server-sent events.

    Events are called ``row`` and hold what ``GET /images/{id}`` answers; ``skipped`` holds how many ``rows`` were left
    out before the next one, for they were too many. A comment comes every 15 seconds. ``Last-Event-ID`` brings the rows
    that came in since that event, the newest 200.
    """
    yield ServerSentEvent(comment="listening", id=str(listener.mark))
    while (taken := await listener.take()) is not None:
        arrivals, skipped = taken
        try:
            await work.log(who.name, "live", [one.mark.id for one in arrivals])
        except AuditError as error:
            _log.error("a live view was ended: %s", error)
            return
        if skipped:
            yield ServerSentEvent(event="skipped", data={"rows": skipped})
        for one in arrivals:
            yield ServerSentEvent(event="row", id=str(one.mark), data=one.image)


@searching.get("/stats", tags=["gallery"], responses=problems(429, 503))
async def stats(place: Place, work: Work) -> schemas.Statistics:
    """Return counts and settings of the gallery."""
    with place:
        return schemas.Statistics(**await work.read(work.gallery.stats))


@searching.get(
    "/metrics",
    tags=["service"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format"}},
)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus. Where tokens are asked for, it needs one that may search."""
    figures: Metrics = request.app.state.metrics
    return Response(await asyncio.to_thread(figures.exposition), headers={"Content-Type": CONTENT_TYPE})


# ---- write -----------------------------------------------------------------------------------------------


@writing.post(
    "/images",
    tags=["gallery"],
    status_code=201,
    responses=problems(408, 413, 415, 422, 429, 503)
    | {200: {"model": schemas.Added, "description": "It was there already"}},
    openapi_extra=form(ImageFacts),
)
async def add(request: Request, response: Response, place: Place, work: Work, who: Who) -> schemas.Added:
    """Put a picture in. The same picture, byte for byte, stays as it was put in first."""
    with place:
        upload = await _upload(request, work, ImageFacts.model_fields)
        try:
            facts = ImageFacts.model_validate(upload.fields)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None
        id_, new = await unless_gone(request, work.add(upload, facts, who.name))
    response.status_code = 201 if new else 200
    return schemas.Added(id=id_)


# ---- erase -----------------------------------------------------------------------------------------------


@erasing.delete("/images/{id}", tags=["gallery"], responses=problems(404, 422, 429, 503))
async def erase_image(place: PlaceToErase, work: Work, who: Who, id: Id) -> schemas.Erased:  # noqa: A002
    """Erase a row: from every answer, and from the disk."""
    with place:
        erased = await work.erase(who.name, id=id)
    if not erased:
        raise HTTPException(404, f"there is no image {id}")
    return schemas.Erased(erased=erased)


@erasing.delete("/identities/{pid:name}", tags=["gallery"], responses=problems(404, 422, 429, 503))
async def erase_identity(place: PlaceToErase, work: Work, who: Who, pid: Identity) -> schemas.Erased:
    """Erase all rows of an identity: from every answer, and from the disk."""
    with place:
        erased = await work.erase(who.name, pid=pid)
    if not erased:
        raise HTTPException(404, "there is no image of this identity")
    return schemas.Erased(erased=erased)


async def _upload(request: Request, work: Operations, fields: Collection[str]) -> Upload:
    return await read_upload(request, fields, work.settings.max_bytes, work.settings.upload_seconds)


async def _found(id: str, look: Awaitable[R]) -> R:  # noqa: A002
    try:
        return await look
    except KeyError:
        raise HTTPException(404, f"there is no image {id}") from None


def _measures(match: Match) -> dict[str, Any]:
    names = ("rank", "distance", "probability", "shares", "parts")
    timed = {"by_looks": match.by_looks, "reason": match.reason} if isinstance(match, TimedMatch) else {}
    return {name: getattr(match, name) for name in names} | {"by_looks": None, "reason": None} | timed
