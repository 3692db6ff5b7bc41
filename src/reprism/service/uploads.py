"""Uploads: read within limits, never written to disk, and decoded only once checked."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Collection
from typing import NamedTuple

from fastapi import HTTPException, Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from torch import Tensor

from reprism.data.images import ImageError, ImageTooLargeError, decode_image

PICTURE = "image"
"""The form's field that holds the picture."""

_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"RIFF": "WEBP"}
"""First bytes of the accepted formats: the ones that cameras and browsers write."""

_MOST_FIELDS = 16
_LONGEST_FIELD = 4096  # bytes


class Upload(NamedTuple):
    """A form that was sent.

    Attributes:
        content: The picture's bytes.
        fields: The other fields, as text.
    """

    content: bytes
    fields: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of the picture's bytes, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


class _InMemory(MultiPartParser):
    """Starlette's parser, but for the temporary files: pictures of people do not go to a disk on their way."""

    spool_max_size = 2**62


async def read_upload(request: Request, fields: Collection[str], max_bytes: int, seconds: float) -> Upload:
    """Read a multipart form with a picture, and any of some other fields.

    Raises:
        HTTPException: 413: its body is larger than ``max_bytes``, by its own word or by count; 408: it took longer than
            ``seconds`` to arrive; 415: it is no multipart form; 422: it cannot be read, is without a picture, or has
            other fields.
        ClientDisconnect: The client went away.
    """
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise HTTPException(415, f"expected multipart/form-data with the picture in the field {PICTURE}")
    parser = _InMemory(
        request.headers,
        _limited(request, max_bytes),
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        async with asyncio.timeout(seconds):
            form = await parser.parse()
    except TimeoutError:
        raise HTTPException(408, f"the picture did not arrive within {seconds:g} seconds") from None
    except MultiPartException as error:
        raise HTTPException(422, f"the form cannot be read: {error.message}") from None
    try:
        picture = form.get(PICTURE)
        if not isinstance(picture, UploadFile):
            raise HTTPException(422, f"the form has no file in the field {PICTURE}")
        content = await picture.read()
    finally:
        await form.close()
    others = [(name, value) for name, value in form.multi_items() if name != PICTURE]
    texts = {name: value for name, value in others if isinstance(value, str) and name in fields}
    if len(texts) < len(others):
        wanted = ", ".join(fields) or "none"
        raise HTTPException(
            422, f"beside {PICTURE}, the fields that the form may have are: {wanted}; each once, as text"
        )
    return Upload(content, texts)


async def read_json(request: Request, max_bytes: int, seconds: float) -> bytes:
    """Read a body of JSON, not parsed.

    Raises:
        HTTPException: 413, 408: as of :func:`read_upload`; 415: it is said to be something else than JSON.
        ClientDisconnect: The client went away.
    """
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind != b"application/json":
        raise HTTPException(415, "expected application/json")
    try:
        async with asyncio.timeout(seconds):
            return b"".join([chunk async for chunk in _limited(request, max_bytes)])
    except TimeoutError:
        raise HTTPException(408, f"the request did not arrive within {seconds:g} seconds") from None


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Read the body within the limit; one that declares more is not read at all."""
    too_large = HTTPException(413, f"the request is larger than the {max_bytes:,} bytes that are taken")
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > max_bytes:
        raise too_large
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > max_bytes:
            raise too_large
        yield chunk


def decode_upload(content: bytes, max_pixels: int) -> Tensor:
    """Decode a picture, uint8 3×H×W RGB, upright. Its first bytes say what it is, not its name.

    Raises:
        HTTPException: 415: it is of no format that is taken; 413: it has more than ``max_pixels`` pixels, as its header
            says, and was not decoded; 422: it cannot be decoded.
    """
    kind = next((kind for start, kind in _SIGNATURES.items() if content.startswith(start)), None)
    if kind is None or (kind == "WEBP" and content[8:12] != b"WEBP"):
        raise HTTPException(415, f"this is no picture of a format that is taken: {', '.join(_SIGNATURES.values())}")
    try:
        return decode_image(content, (kind,), max_pixels)
    except ImageTooLargeError as error:
        raise HTTPException(413, f"the picture is too large: {error.reason}") from None
    except ImageError as error:
        raise HTTPException(422, f"the picture cannot be decoded: {error.reason}") from None
