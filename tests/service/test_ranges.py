"""Parts of an answer, compared with slices of all of it."""

import hashlib

from fastapi import Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from reprism.service.ranges import answer_range

CONTENT = bytes(range(200))
ETAG = answer_range(CONTENT, Headers(), "video/mp4").headers["etag"]
numbers = st.integers(0, 210)


def asked(text: str, **more: str) -> Response:
    return answer_range(CONTENT, Headers({"range": text, **more}), "video/mp4")


def is_all(answer: Response) -> bool:
    return answer.status_code == 200 and answer.body == CONTENT and "content-range" not in answer.headers


def is_part(answer: Response, part: bytes, begin: int) -> bool:
    said = answer.headers.get("content-range")
    whole = answer.status_code == 206 and answer.headers["content-length"] == str(len(part))
    return whole and answer.body == part and said == f"bytes {begin}-{begin + len(part) - 1}/200"


def is_refused(answer: Response) -> bool:
    return (answer.status_code, answer.body, answer.headers["content-range"]) == (416, b"", "bytes */200")


@given(numbers, numbers)
def test_from_here_to_there(first: int, last: int) -> None:
    answer, part = asked(f"bytes={first}-{last}"), CONTENT[first : last + 1]
    assert is_all(answer) if last < first else is_part(answer, part, first) if part else is_refused(answer)


@given(numbers)
def test_from_here_on(first: int) -> None:
    answer, part = asked(f"bytes={first}-"), CONTENT[first:]
    assert is_part(answer, part, first) if part else is_refused(answer)


@given(numbers)
def test_the_last_ones(count: int) -> None:
    answer, part = asked(f"bytes=-{count}"), CONTENT[-count:] if count else b""
    assert is_part(answer, part, len(CONTENT) - len(part)) if part else is_refused(answer)


@given(st.text("0123456789-, =abtesy", max_size=20) | st.sampled_from(["bytes=-", "items=0-5", "bytes=0-5,9-", "0-5"]))
def test_what_is_no_single_range_gets_all(text: str) -> None:
    first, _, last = text.partition("=")[2].strip(" ").partition("-")
    is_range = text.startswith("bytes=") and (first + last).isdigit() and "-" in text
    assert is_range or is_all(asked(text))


def test_a_number_may_be_as_long_as_it_likes() -> None:
    assert is_part(asked(f"bytes=190-{10**29}"), CONTENT[190:], 190)
    assert is_all(asked(f"bytes=0-{'9' * 10_000}"))


def test_a_part_of_another_content_is_not_mixed_in() -> None:
    assert is_part(asked("bytes=5-9", **{"if-range": ETAG}), CONTENT[5:10], 5)
    assert is_all(asked("bytes=5-9", **{"if-range": '"another"'}))
    assert is_all(asked("bytes=5-9", **{"if-range": "Mon, 30 Nov 2026 19:00:00 GMT"}))
    assert is_all(asked("bytes=500-", **{"if-range": '"another"'}))


def test_the_tag_is_of_the_content() -> None:
    other = answer_range(CONTENT[1:], Headers(), "video/mp4")
    assert hashlib.sha256(CONTENT).hexdigest()[:32] == ETAG.strip('"')
    assert other.headers["etag"] != ETAG
    assert asked("bytes=5-9").headers["etag"] == ETAG == asked("bytes=500-").headers["etag"]
    assert asked("bytes=5-9").headers["accept-ranges"] == "bytes"
