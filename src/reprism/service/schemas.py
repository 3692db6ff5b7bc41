"""Requests and answers over HTTP, as the OpenAPI document describes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from reprism.service.access import Scope
from reprism.service.uploads import PICTURE

_ID = "0123456789abcdef0123456789abcdef"
EVENT_ID = f"1772357412123456-1772357405000000-{_ID}"
_TIME, _UNTIL = "2026-03-01T08:15:00Z", "2026-03-01T08:15:07.400Z"

RowId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", examples=[_ID])]
"""A row's id, as Reprism makes it."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
"""An identity, a camera or a source."""


def _moment(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"expected a time in ISO 8601, such as {_TIME}") from None


Moment = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time", "examples": [_TIME]})
]
"""A time; without a zone it is taken for UTC."""


class SearchQuery(BaseModel):
    """Matches that a search asks for."""

    model_config = ConfigDict(extra="forbid")

    top: int = Field(20, ge=1, le=200, description="How many matches, at most.")
    camera: list[Name] = Field([], max_length=100, description="Search only these cameras.")
    not_camera: list[Name] = Field([], max_length=100, description="Leave out these cameras.")
    after: Moment | None = Field(None, description="Taken then or later; without a zone: UTC.")
    before: Moment | None = Field(None, description="Taken earlier than this.")
    threshold: float | None = Field(None, ge=0, le=2, allow_inf_nan=False, description="The largest distance.")
    group_by: Literal["none", "pid", "tracklet"] = Field("none", description="Of each group the nearest alone.")
    rerank: bool = Field(False, description="Whether to order the nearest by k-reciprocal re-ranking.")
    times: bool = Field(
        False,
        description="Whether to rank by the times between cameras too, which takes the scope link. Give query_camera "
        "and query_time; leave threshold, group_by and rerank out.",
    )
    query_camera: Name | None = Field(None, description="With times: the camera that took the picture.")
    query_time: Moment | None = Field(None, description="With times: when it was taken; without a zone: UTC.")

    @property
    def contradiction(self) -> str | None:
        """Say which fields do not go together; None if all do. (The OpenAPI document cannot say so.)"""
        placed = self.query_camera is not None, self.query_time is not None
        if self.times and not all(placed):
            return "times takes query_camera and query_time: where and when the picture was taken"
        if self.times and (self.threshold is not None or self.group_by != "none" or self.rerank):
            return "threshold, group_by and rerank are for a search by looks alone: leave them or times out"
        if not self.times and any(placed):
            return "query_camera and query_time are for times: give times=true, or leave them out"
        return None


class ImageFacts(BaseModel):
    """Details of a picture that is added."""

    model_config = ConfigDict(extra="forbid")

    pid: Name | None = Field(None, description="Who it is.", examples=["ada"])
    camid: Name | None = Field(None, description="The camera.", examples=["gate"])
    time: Moment | None = Field(None, description="When it was taken; without a zone: UTC.")
    source: Name | None = Field(None, description="Where it comes from, in your words.", examples=["visitors"])


Box = tuple[float, float, float, float]


class Clip(BaseModel):
    """The seconds of a video around a sighting."""

    address: str = Field(description="Where it is.", examples=[f"/images/{_ID}/clip"])
    first: float = Field(description="Seconds of the clip at the first sight, to a frame.", examples=[2.0])
    last: float = Field(description="The same of the last sight.", examples=[9.4])


class Image(BaseModel):
    """A row of the gallery: an image or a tracklet."""

    id: str = Field(examples=[_ID])
    path: str = Field(description="Where it lies; of an upload, its digest.", examples=["upload:9f86d081884c7d65"])
    pid: str | None = Field(description="Who it is, if known.", examples=["ada"])
    camid: str | None = Field(description="The camera, if known.", examples=["gate"])
    time: datetime | None = Field(description="When it was taken, if known.", examples=[_TIME])
    until: datetime | None = Field(description="When a tracklet was last seen, if known.", examples=[_UNTIL])
    tracklet: str | None = Field(description="The tracklet it is, or is of.", examples=[None])
    frames: int = Field(description="How many pictures it is made of.", examples=[1])
    source: str | None = Field(examples=["visitors"])
    first_box: Box | None = Field(
        description="Left, top, right and bottom of a tracklet's first sight, as shares of the frame.",
        examples=[[0.1, 0.2, 0.15, 0.6]],
    )
    last_box: Box | None = Field(description="The same of its last sight.", examples=[[0.7, 0.25, 0.75, 0.65]])
    thumbnail: str | None = Field(description="Where its small picture is.", examples=[f"/images/{_ID}/thumbnail"])
    strip: list[str] = Field(
        description="Where a tracklet's small pictures are, in the order of time.",
        examples=[[f"/images/{_ID}/strip/0"]],
    )
    clip: Clip | None = Field(description="The seconds of its video, where that can be played.")


class PartAgreement(BaseModel):
    """The agreement of one part, on a scale that is the same for all matches."""

    model_config = ConfigDict(from_attributes=True)

    strangers: float = Field(ge=0, le=100, description="How many percent of strangers are nearer.", examples=[3.2])
    same_person: float | None = Field(
        ge=0,
        le=100,
        description="How many percent of pictures of the same person are nearer; null if not calibrated.",
        examples=[41.0],
    )
    verdict: Literal["agrees", "differs", "unclear"] = Field(
        description="What this says by the rule in the documentation (What agrees in a match).", examples=["agrees"]
    )


class Reason(BaseModel):
    """Why two sightings may be of one person, or may not."""

    model_config = ConfigDict(from_attributes=True)

    text: str = Field(
        description="All of it in words.",
        examples=["p2s2 and p2c1 agree; 41 s between stairs and yard, usual 35 to 60 s"],
    )
    agree: list[str] = Field(description="Parts that agree.", examples=[["p2s2", "p2c1"]])
    differ: list[str] = Field(description="Parts that differ.", examples=[[]])
    parts: int = Field(description="How many parts were compared.", examples=[5])
    cameras: tuple[str | None, str | None] = Field(
        description="The two cameras, the earlier sighting's first.", examples=[["stairs", "yard"]]
    )
    seconds: float | None = Field(description="Seconds between the sightings, if known.", examples=[41.0])
    usual: tuple[float, float] | None = Field(
        description="How many seconds half of all take that way; null where there is no usual way.",
        examples=[[35.0, 60.0]],
    )
    at_once: bool = Field(description="Whether both cameras saw a person at once.", examples=[False])
    log_ratio: float = Field(
        description="Natural logarithm of how much likelier the times are for one person than for any two.",
        examples=[2.1],
    )
    floor: float | None = Field(
        description="The least that these cameras give any times; null where nothing is known.", examples=[-2.3]
    )
    verdict: Literal["usual", "unclear", "unusual", "unknown"] = Field(
        description="What the times say; unusual: no usual way, which the floor alone keeps possible.",
        examples=["usual"],
    )
    times: str = Field(
        description="What is said of cameras and times, in words.",
        examples=["41 s between stairs and yard, usual 35 to 60 s"],
    )


class Match(Image):
    """A row that was found."""

    rank: int = Field(description="From 1.", examples=[1])
    distance: float = Field(description="Euclidean, 0 to 2.", examples=[0.412])
    probability: float | None = Field(description="That it is right, if calibrated.", examples=[0.93])
    shares: dict[str, float] | None = Field(
        description="Each part's share of the squared distance; they sum to it.", examples=[{"p1": 0.1, "p2s1": 0.07}]
    )
    parts: dict[str, PartAgreement] | None = Field(
        description="How well each part agrees; null if the gallery is too small to say.",
        examples=[{"p1": {"strangers": 3.2, "same_person": 41.0, "verdict": "agrees"}}],
    )
    by_looks: float | None = Field(
        description="The probability by looks alone, in a search by times; probability is then that by both.",
        examples=[0.71],
    )
    reason: Reason | None = Field(description="Why, in a search by times.")


class Seconds(BaseModel):
    """Seconds that an answer took, waiting included."""

    embed: float = Field(description="Decoding and the network.", examples=[0.031])
    search: float = Field(examples=[0.008])


class SearchAnswer(BaseModel):
    """Matches, best first."""

    matches: list[Match]
    seconds: Seconds


class Added(BaseModel):
    """Id of a picture that was added."""

    id: str = Field(examples=[_ID])


class Erased(BaseModel):
    """Number of rows erased."""

    erased: int = Field(examples=[3])


class Index(BaseModel):
    """The index over descriptors."""

    kind: str = Field(examples=["IVF_HNSW_SQ"])
    indexed: int = Field(examples=[100000])
    unindexed: int = Field(examples=[12])


class Statistics(BaseModel):
    """Counts and settings of the gallery."""

    rows: int = Field(examples=[100012])
    identities: int = Field(description="Known ones.", examples=[751])
    cameras: dict[str, int] = Field(description="Rows of each.", examples=[{"gate": 60000, "hall": 40012}])
    first: datetime | None = Field(examples=[_TIME])
    last: datetime | None = Field(examples=[_TIME])
    bytes: int | None = Field(description="On disk; null in object storage.", examples=[221000000])
    index: Index | None
    fingerprint: str = Field(description="Of the network.", examples=["ab" * 32])
    partition: str = Field(description="Its notation.", examples=["p1+p2(s2c2)+p3(s3c3)"])
    flip: bool = Field(description="Whether the mirrored picture counts too.", examples=[True])
    storage: str = Field(examples=["float32"])
    dim: int = Field(description="Columns that are stored.", examples=[512])
    descriptor_dim: int = Field(description="Columns before compression.", examples=[3328])
    erasing: bool = Field(description="Whether an erasure's bytes are still to go.", examples=[False])


class Session(BaseModel):
    """Rights of the caller."""

    scopes: list[Scope] = Field(examples=[["search"]])
    tokens: bool = Field(description="Whether tokens are asked for.", examples=[True])
    cameras: list[str] = Field(description="To filter by; for those who may search.", examples=[["gate", "hall"]])
    times: list[str] = Field(
        description="Cameras between which times are known; for those who may search and link.", examples=[["gate"]]
    )
    people: bool = Field(
        description="Whether linking is on, and the caller may see people: who may search and link.", examples=[True]
    )


class Health(BaseModel):
    """The service runs and can read its gallery."""

    status: Literal["ok"] = "ok"


class Problem(BaseModel):
    """The mistake, and what was expected."""

    detail: str


_PROBLEMS = {
    401: ("No token, or an unknown one", "expected a token: Authorization: Bearer TOKEN"),
    403: ("The token lacks the scope", "this token has not the scope erase"),
    404: ("There is no such row", f"there is no image {_ID}"),
    408: ("The body took too long to arrive", "the picture did not arrive within 30 seconds"),
    409: (
        "The calibration no longer fits the gallery, there are no times to search by, or fields do not go together",
        "the calibration no longer fits the gallery: calibrate it anew",
    ),
    413: ("Too many bytes or pixels", "the request is larger than the 10,485,760 bytes that are taken"),
    415: ("No form, or no picture", "this is no picture of a format that is taken: JPEG, PNG, WEBP"),
    422: ("Undecodable, or a value out of range", "the picture cannot be decoded: it is truncated or corrupt"),
    429: ("Too many requests of this token", "too many of your requests are under way: wait for their answers"),
    503: (
        "Too many requests wait, or the gallery or the audit log cannot be used",
        "too many requests are waiting: try again in a moment",
    ),
}


def problem(description: str, detail: str) -> dict[str, Any]:
    """Return an error that an endpoint answers, with an example of its detail."""
    content = {"application/json": {"example": {"detail": detail}}}
    return {"model": Problem, "description": description, "content": content}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors that an endpoint answers, each with an example."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = problem(*_PROBLEMS[status])
    for status in {429, 503} & found.keys():
        found[status]["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds; where it is known."}
        }
    return found


def form(model: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return the body of an upload, for OpenAPI: the picture, and the fields of a model."""
    described = {} if model is None else model.model_json_schema()["properties"]
    # A field of a form may be left out, but there is no null to write in it.
    fields = {
        name: {k: v for k, v in value.items() if k not in ("anyOf", "default")} | value["anyOf"][0]
        for name, value in described.items()
    }
    picture = {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP: a person, upright, cropped."}
    schema = {
        "type": "object",
        "properties": {PICTURE: picture} | fields,
        "required": [PICTURE],
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
