"""Requests and answers about the people of a gallery, as the OpenAPI document describes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reprism.service.schemas import Moment, Name, RowId

_ID, _OTHER_ID = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
_TIME, _UNTIL = "2026-03-01T08:15:00Z", "2026-03-01T08:15:07.400Z"
_WHY = "41 s between stairs and yard, usual 35 to 60 s"
_MOST_ROWS = 100_000  # of either side of an answer

Ids = Annotated[list[RowId], Field(examples=[[_ID]])]


class PeopleQuery(BaseModel):
    """People that are asked for: all conditions must hold for one of a person's sights."""

    model_config = ConfigDict(extra="forbid")

    camera: list[Name] = Field([], max_length=100, description="Seen by one of these cameras.")
    after: Moment | None = Field(None, description="Seen then or later; without a zone: UTC.")
    before: Moment | None = Field(None, description="Seen earlier than this.")
    offset: int = Field(0, ge=0, le=2**31 - 1, description="How many people to pass over.")
    limit: int = Field(60, ge=1, le=200, description="How many people, at most.")


class Person(BaseModel):
    """Somebody whom cameras saw: rows that were linked."""

    id: int = Field(description="Their number, which is never given to somebody else.", examples=[7])
    rows: int = Field(description="How many rows they have.", examples=[5])
    cameras: list[str] = Field(description="In the order of their first sights.", examples=[["gate", "hall"]])
    first: datetime = Field(description="When they were first seen.", examples=[_TIME])
    last: datetime = Field(description="When they were last seen.", examples=[_UNTIL])
    confidence: float | None = Field(
        description="Mean probability of all pairs of rows; null after one was erased.", examples=[0.83]
    )
    faces: Ids = Field(description="Ids of up to six rows, spread over time.", examples=[[_ID]])


class PeopleAnswer(BaseModel):
    """People, those with most rows first."""

    total: int = Field(description="How many there are, those passed over and left out included.", examples=[123])
    people: list[Person]


class Sight(BaseModel):
    """One of a person's rows."""

    id: str = Field(examples=[_ID])
    camera: str = Field(examples=["gate"])
    time: datetime = Field(description="When it was taken; of a tracklet, its first sight.", examples=[_TIME])
    until: datetime | None = Field(description="When a tracklet was last seen, if known.", examples=[_UNTIL])
    strip: int = Field(description="How many small pictures of a tracklet were kept.", examples=[8])
    thumbnail: bool = Field(description="Whether a small picture was kept.", examples=[True])


class PersonLink(BaseModel):
    """Two of a person's sights that follow each other, and why they may be of one person."""

    one: str = Field(description="Id of the earlier row.", examples=[_ID])
    other: str = Field(description="Id of the later row.", examples=[_OTHER_ID])
    sentence: str = Field(description="What is said of cameras and times.", examples=[_WHY])
    probability: float | None = Field(
        description="That both are of one person, by looks and times; null where nothing is learned.", examples=[0.93]
    )


class PersonAnswer(Person):
    """A person with all sights in the order of time, and what links each to the next."""

    sights: list[Sight]
    links: list[PersonLink]


class NetworkCamera(BaseModel):
    """A camera, and how many rows of it linking keeps."""

    camera: str = Field(examples=["gate"])
    rows: int = Field(examples=[120])


class NetworkWay(BaseModel):
    """A way that people take from one camera to another, with its times in seconds."""

    model_config = ConfigDict(populate_by_name=True)

    start: str = Field(alias="from", examples=["gate"])
    to: str = Field(examples=["hall"])
    usual: tuple[float, float] = Field(description="Half of all take between these.", examples=[[35.0, 60.0]])
    median: float = Field(examples=[45.0])
    matches: int = Field(description="How many matches tell it.", examples=[31])


class NetworkAnswer(BaseModel):
    """The cameras and the ways between them."""

    cameras: list[NetworkCamera]
    ways: list[NetworkWay]


class Question(BaseModel):
    """Two groups of rows of which it is doubtful whether they are one person."""

    one: Ids = Field(description="Ids of the rows of the first; its first row and the other's look most alike.")
    other: Ids = Field(description="Ids of the rows of the second.", examples=[[_OTHER_ID]])
    probability: float = Field(description="That both are one person.", examples=[0.31])
    doubt: float = Field(description="Probability that things are not as they are now.", examples=[0.31])
    people: list[int] = Field(
        description="Number of the person whom ``one`` is of now, then of ``other`` if it is another.",
        examples=[[7, 9]],
    )
    sentence: str = Field(description="What cameras and times say of the first row of either.", examples=[_WHY])


class QuestionsAnswer(BaseModel):
    """Questions, the greatest doubts first. They are kept for whoever asked, for two minutes."""

    questions: list[Question]
    left: int = Field(description="How many more wait, without those that others were handed.", examples=[12])


class Said(BaseModel):
    """What somebody says of rows."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["same", "different", "unsure"] = Field(
        description="same: all of the rows are of one person; different: nobody is in both one and other; unsure: it "
        "cannot be told, and is not asked again.",
        examples=["same"],
    )
    one: Ids = Field(min_length=1, max_length=_MOST_ROWS, description="Ids of rows.")
    other: Ids = Field([], max_length=_MOST_ROWS, description="Ids of rows.", examples=[[_OTHER_ID]])


class Answer(BaseModel):
    """What somebody said of rows."""

    model_config = ConfigDict(from_attributes=True)

    number: int = Field(description="From 1; never given twice.", examples=[3])
    kind: Literal["same", "different", "unsure"] = Field(examples=["same"])
    one: Ids
    other: Ids = Field(examples=[[_OTHER_ID]])
    by: str = Field(description="Who said so, as in the audit log.", examples=["reception"])
    at: datetime = Field(description="When.", examples=[_TIME])


class PeopleChange(BaseModel):
    """Rows that went from one person to another."""

    model_config = ConfigDict(from_attributes=True)

    number: int = Field(description="From 1.", examples=[5])
    at: datetime = Field(description="When.", examples=[_TIME])
    kind: Literal["merge", "split", "move"] = Field(description="What happened.", examples=["merge"])
    before: int = Field(description="Number of the person whom they were of.", examples=[9])
    after: int = Field(description="Number of the person whom they are of since.", examples=[7])
    rows: Ids = Field(description="Ids of the rows that moved.")
    left: Ids = Field(description="Ids of the rows that stayed behind; none: the two became one.", examples=[[]])
    met: Ids = Field(
        description="Ids of the rows that were there already; none: the other is new.", examples=[[_OTHER_ID]]
    )
    answer: int | None = Field(
        description="Number of the answer that led to it; null: the cameras' sights alone.", examples=[3]
    )


class AnsweredAnswer(BaseModel):
    """An answer that was given, or taken back, and how people changed by it."""

    answer: Answer
    changes: list[PeopleChange]


class UndoneAnswer(BaseModel):
    """The answers that were given, or taken back, to undo a change; and how people changed by it."""

    answers: list[Answer]
    changes: list[PeopleChange]


class AnswersAnswer(BaseModel):
    """Answers that hold, newest first."""

    answers: list[Answer]


class ChangesAnswer(BaseModel):
    """How people changed, newest first."""

    changes: list[PeopleChange]


def said_body() -> dict[str, Any]:
    """Return the body of an answer, for OpenAPI."""
    content = {"application/json": {"schema": Said.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}
