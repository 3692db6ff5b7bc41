"""``reprism serve``."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from reprism.cli.embedding import Device, Precision
from reprism.cli.galleries import open_gallery, parse_duration

_GRACE = 30  # seconds that requests under way have left when the service is told to end


@dataclass
class Arguments:
    """Serve a gallery over HTTP: an API (described at /openapi.json), and a page to search it in a browser.

    Without tokens it can be reached from this machine only. To open it to others, give each of them a token, and keep
    the tokens from being overheard: by --certificate and --key, or behind a proxy that does TLS.
    """

    gallery: str
    """What reprism index made."""
    model: Path | None = None
    """The model it was made with; by custom the file that it noted."""
    host: str = "127.0.0.1"
    """The address to listen on; another than this machine's own needs tokens."""
    port: int = 8000
    tokens: Path | None = None
    """A TOML file with a table for each holder: [alice] token = "…" (or sha256 = "…"), scopes = ["search", "write",
    "erase"]. Others on this machine must not be able to read it. REPRISM_TOKENS may hold the same text instead."""
    certificate: Path | None = None
    """For TLS: the certificate (PEM)."""
    key: Path | None = None
    """For TLS: its key (PEM)."""
    audit: Path | None = None
    """Where to note who searched, added and erased, and which rows; by custom GALLERY.audit.jsonl, beside it."""
    calibration: Path | None = None
    """calibration.json, to give each match the probability that it is right; of this gallery's distances."""
    retain: str | None = None
    """Erase rows older than this, such as 30d (or h, w), at the start and every hour."""
    thumbnails: bool = True
    """Whether to keep a small picture of what is put in."""
    queue: int = 64
    """Requests at work or waiting; more are told to come back."""
    max_bytes: int = 10 * 2**20
    """Largest upload."""
    max_pixels: int = 2**25
    """Largest picture decoded."""
    batch_size: int = 16
    """Pictures that the network takes at a time, if so many wait."""
    precision: Precision = "auto"
    device: Device = None


def run(argv: Sequence[str]) -> int:
    """Run ``reprism serve`` until it is told to end; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism serve")
    try:
        import uvicorn

        from reprism.service.access import TOKENS_VARIABLE, Access, check_host
    except ImportError as error:
        raise ValueError(f"serving needs {error.name}. Install it: pip install 'reprism[serve]'.") from error

    if arguments.tokens is not None and os.environ.get(TOKENS_VARIABLE):
        raise ValueError(f"both --tokens and {TOKENS_VARIABLE} give tokens: keep to one")
    access = Access.from_environment() if arguments.tokens is None else Access.from_file(arguments.tokens)
    check_host(arguments.host, access)
    if (arguments.certificate is None) != (arguments.key is None):
        raise ValueError("TLS needs both --certificate and --key")

    from reprism.evaluation.calibration import Calibration
    from reprism.service.api import ServiceSettings, create_app
    from reprism.service.audit import AuditLog

    settings = ServiceSettings(
        max_bytes=arguments.max_bytes,
        max_pixels=arguments.max_pixels,
        queue=arguments.queue,
        batch_size=arguments.batch_size,
        retain=None if arguments.retain is None else parse_duration(arguments.retain, "--retain"),
        thumbnails=arguments.thumbnails,
    )
    calibration = None if arguments.calibration is None else Calibration.read(arguments.calibration)
    gallery, embedder = open_gallery(
        arguments.gallery,
        arguments.model,
        batch_size=arguments.batch_size,
        precision=arguments.precision,
        device=arguments.device,
    )
    with AuditLog(_audit_path(arguments)) as audit:
        uvicorn.run(
            create_app(gallery, embedder, settings, calibration, access=access, audit=audit),
            host=arguments.host,
            port=arguments.port,
            ssl_certfile=arguments.certificate,
            ssl_keyfile=arguments.key,
            # Paths name identities, also erased ones; the audit log says what is to be known.
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE,
        )
    return 0


def _audit_path(arguments: Arguments) -> Path:
    if arguments.audit is not None:
        return arguments.audit
    if "://" in arguments.gallery:
        raise ValueError(f"{arguments.gallery} has no folder beside it for the audit log: say where by --audit FILE")
    folder = Path(arguments.gallery)
    return folder.absolute().with_name(f"{folder.absolute().name}.audit.jsonl")
