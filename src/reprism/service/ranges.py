"""Answers to requests for a part of something (RFC 9110, section 14). Starlette has them for files on a disk only."""

from __future__ import annotations

import hashlib
import re

from fastapi import Response
from starlette.datastructures import Headers

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,30})-([0-9]{0,30})[ \t]*", re.IGNORECASE)


def answer_range(content: bytes, headers: Headers, media_type: str) -> Response:
    """Return what a request asks for of some content.

    Args:
        content: All of it.
        headers: The request's: ``Range``, and ``If-Range`` with the ETag of an earlier answer.
        media_type: Type of the content.

    Returns:
        206 with the part; 416 if the content ends before it; 200 with all if no part is asked for, several are, or the
        content is another one by now.
    """
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    answered = {"Accept-Ranges": "bytes", "ETag": etag}
    span = _span(headers.get("range", ""), len(content))
    if span is None or headers.get("if-range", etag) != etag:
        return Response(content, media_type=media_type, headers=answered)
    first, end = span
    if first >= end:
        return Response(status_code=416, headers=answered | {"Content-Range": f"bytes */{len(content)}"})
    answered["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
    return Response(content[first:end], 206, media_type=media_type, headers=answered)


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """Return the first byte of a range and the one after its last; None if it is no single range."""
    match = _RANGE.fullmatch(asked)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1 if last else size)
