"""Shared by commands on galleries: opening one with its own model, and moments in time."""

import getpass
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from reprism.cli.embedding import NetworkSettings, load_embedder

if TYPE_CHECKING:
    from reprism.embedding import Embedder
    from reprism.gallery.table import Gallery
    from reprism.service.audit import AuditLog

AUDIT_KEY = ".audit.key"
"""The file in a gallery's folder that the pseudonyms in its audit log are made with."""

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def open_gallery(
    uri: str, model: Path | None, network: NetworkSettings, *, batch_size: int, pictures: int | None = None
) -> "tuple[Gallery, Embedder]":
    """Open a gallery to search it, and make its embedder, of the given model or of the one recorded in the gallery.

    Raises:
        GalleryError: There is no such gallery, or it was made with another model.
        CheckpointError: The model cannot be loaded.
        ValueError: No model is given, and none was noted, or it lies there no more.
    """
    from reprism.gallery.table import Gallery

    gallery = Gallery.open(uri)
    if model is None:
        model = gallery.model
        if model is None or not model.exists():
            gone = "" if model is None else f" (it was {model}, which is there no more)"
            raise ValueError(f"expected --model, the file of the model that {uri} was made with{gone}")
    embedder = load_embedder(model, network, batch_size=batch_size, flip=gallery.flip, pictures=pictures)
    gallery.check(embedder, searching=True)
    return gallery, embedder


def open_audit(gallery: str, given: Path | None) -> "AuditLog":
    """Open a gallery's audit log (:func:`audit_path`), with the key that lies in the gallery.

    Raises:
        ValueError: The gallery lies in object storage, and no path is given.
        AuditError: The log or the key cannot be opened.
    """
    from reprism.service.audit import AuditLog

    path = audit_path(gallery, given)
    return AuditLog(path, None if "://" in gallery else Path(gallery) / AUDIT_KEY)


def system_user() -> str:
    """Return the name of whoever runs this, as the system knows them; their number if they have none."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except ImportError:  # Windows
        return getpass.getuser()
    except KeyError:
        return f"user {os.getuid()}"


def audit_path(gallery: str, given: Path | None) -> Path:
    """Return where a gallery's audit log lies: where the user says, or else ``GALLERY.audit.jsonl`` beside it.

    Raises:
        ValueError: The gallery lies in object storage, and no path is given.
    """
    if given is not None:
        return given
    if "://" in gallery:
        raise ValueError(f"{gallery} has no folder beside it for the audit log: name a file by --audit FILE")
    folder = Path(gallery).absolute()
    return folder.with_name(f"{folder.name}.audit.jsonl")


def parse_moment(text: str, flag: str) -> datetime:
    """Parse a moment in ISO 8601; without a time zone it is UTC, as in tables that are indexed.

    Raises:
        ValueError: The text is not of that form.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"{flag} {text!r}: expected a moment in ISO 8601, such as 2024-05-01T12:30:00+02:00"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def parse_age(text: str, flag: str) -> datetime:
    """Parse an age, a number with ``h``, ``d`` or ``w``, into the moment so long ago; or a moment in ISO 8601.

    Raises:
        ValueError: The text is neither.
    """
    if text[-1:] in _UNITS:
        duration = parse_duration(text, flag)
        try:
            return datetime.now(UTC) - duration
        except OverflowError as error:
            raise ValueError(f"{flag} {text!r} is before the year 1") from error
    try:
        return parse_moment(text, flag)
    except ValueError as error:
        raise ValueError(f"{flag} {text!r}: expected an age, such as 30d (or h, w), or a moment in ISO 8601") from error


def parse_duration(text: str, flag: str) -> timedelta:
    """Parse a duration: a whole number with ``h``, ``d`` or ``w``.

    Raises:
        ValueError: The text is of another form, or the duration longer than can be counted.
    """
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit()):
        raise ValueError(f"{flag} {text!r}: expected a duration, such as 30d (or h, w)")
    try:
        return timedelta(**{_UNITS[unit]: int(number)})
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{flag} {text!r} is longer than can be counted") from error
