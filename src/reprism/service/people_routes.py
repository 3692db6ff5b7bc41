"""The endpoints about people, for holders of the scopes search and link."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from reprism.gallery.people import Person
from reprism.service import people_schemas as schemas
from reprism.service.people import People, faces_of
from reprism.service.people_schemas import PeopleQuery, Said, said_body
from reprism.service.routes import Place, Who, Work
from reprism.service.schemas import problem, problems
from reprism.service.times import NOT_LEARNED, OFF
from reprism.service.uploads import read_json


def _people(request: Request) -> People:
    return request.app.state.people


Seen = Annotated[People, Depends(_people)]
Number = Annotated[int, Path(description="Its number.", ge=1, le=2**31 - 1)]
Most = Annotated[int, Query(ge=1, le=200, description="How many, at most.")]

_OFF: dict[int | str, dict[str, Any]] = {409: problem("Linking is off", OFF)}
_REFUSED: dict[int | str, dict[str, Any]] = {
    409: problem(
        "Linking is off; or the answer contradicts what the cameras saw or an earlier answer, or is about a row that "
        "may not be linked; or it was kept, but too little is known to link by",
        "that contradicts answer 3 (different, by reception, 2026-03-01 08:15 UTC): take it back first",
    )
}
_LACKING: dict[int | str, dict[str, Any]] = {404: problem("There is none of this number", "there is no person 7")}

seeing = APIRouter(responses=problems(401, 403), tags=["people"])


@seeing.get("/people", responses=problems(422, 429, 503) | _OFF)
async def people(place: Place, seen: Seen, who: Who, query: Annotated[PeopleQuery, Query()]) -> schemas.PeopleAnswer:
    """Return people, those with most rows first."""
    with place:
        total, found = await seen.found(query, who.name)
    return schemas.PeopleAnswer(total=total, people=[schemas.Person(**_facts_of(person)) for person in found])


@seeing.get(
    "/people/network",
    responses=problems(429, 503) | {409: problem("Linking is off, or no times are known", NOT_LEARNED)},
)
async def network(place: Place, seen: Seen) -> schemas.NetworkAnswer:
    """Return the cameras, and how long people take from one to another."""
    with place:
        rows, ways = await seen.network()
    cameras = [schemas.NetworkCamera(camera=camera, rows=count) for camera, count in rows.items()]
    return schemas.NetworkAnswer(cameras=cameras, ways=[schemas.NetworkWay(**way) for way in ways])


@seeing.get("/people/questions", responses=problems(422, 429, 503) | _OFF)
async def questions(place: Place, seen: Seen, who: Who, limit: Most = 10) -> schemas.QuestionsAnswer:
    """Return what is most worth a question. Others are asked something else for two minutes."""
    with place:
        asked, left = await seen.questions(limit, who.name)
    return schemas.QuestionsAnswer(
        questions=[
            schemas.Question(**each.doubt.as_dict(), people=each.people, sentence=each.sentence) for each in asked
        ],
        left=left,
    )


@seeing.post(
    "/people/answers",
    status_code=201,
    responses=problems(408, 413, 415, 422, 429, 503) | _REFUSED,
    openapi_extra=said_body(),
)
async def answer(request: Request, place: Place, work: Work, seen: Seen, who: Who) -> schemas.AnsweredAnswer:
    """Say of rows whether they are of one person; it holds from now on, and the people follow at once."""
    with place:
        content = await read_json(request, work.settings.max_bytes, work.settings.upload_seconds)
        try:
            said = Said.model_validate_json(content)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None
        done = await seen.answer(said, who.name)
    return schemas.AnsweredAnswer.model_validate(
        {"answer": done.answers[0], "changes": done.changes}, from_attributes=True
    )


@seeing.get("/people/answers", responses=problems(429, 503) | _OFF)
async def answers(place: Place, seen: Seen, who: Who) -> schemas.AnswersAnswer:
    """Return what was said of rows and holds, newest first."""
    with place:
        return schemas.AnswersAnswer.model_validate({"answers": await seen.answers(who.name)}, from_attributes=True)


@seeing.delete("/people/answers/{number}", responses=problems(422, 429, 503) | _LACKING | _REFUSED)
async def undo_answer(place: Place, seen: Seen, who: Who, number: Number) -> schemas.AnsweredAnswer:
    """Take an answer back; the people follow at once."""
    with place:
        done = await seen.undo_answer(number, who.name)
    return schemas.AnsweredAnswer.model_validate(
        {"answer": done.answers[0], "changes": done.changes}, from_attributes=True
    )


@seeing.get("/people/changes", responses=problems(422, 429, 503) | _OFF)
async def changes(place: Place, seen: Seen, who: Who, limit: Most = 50) -> schemas.ChangesAnswer:
    """Return how people changed, newest first."""
    with place:
        found = await seen.changes(limit, who.name)
    return schemas.ChangesAnswer.model_validate({"changes": found}, from_attributes=True)


@seeing.post("/people/changes/{number}/undo", responses=problems(422, 429, 503) | _LACKING | _REFUSED)
async def undo_change(place: Place, seen: Seen, who: Who, number: Number) -> schemas.UndoneAnswer:
    """Bring rows back to the people whom they were of before a change."""
    with place:
        done = await seen.undo_change(number, who.name)
    return schemas.UndoneAnswer.model_validate({"answers": done.answers, "changes": done.changes}, from_attributes=True)


@seeing.get("/people/{number}", responses=problems(422, 429, 503) | _LACKING | _OFF)
async def person(place: Place, seen: Seen, who: Who, number: Number) -> schemas.PersonAnswer:
    """Return a person with all sights, and what links each to the next."""
    with place:
        found = await seen.sights(number, who.name)
    sights = [
        schemas.Sight(
            id=row.id,
            camera=row.camid or "",
            time=row.time,
            until=row.until,
            strip=found.pictures[row.id].strip,
            thumbnail=found.pictures[row.id].thumbnail,
        )
        for row in found.rows
        if row.time is not None
    ]
    links = [schemas.PersonLink(**link._asdict()) for link in found.links]
    return schemas.PersonAnswer(**_facts_of(found.person), sights=sights, links=links)


def _facts_of(person: Person) -> dict[str, Any]:
    names = ("id", "cameras", "first", "last", "confidence")
    return {name: getattr(person, name) for name in names} | {"rows": len(person.rows), "faces": faces_of(person)}
