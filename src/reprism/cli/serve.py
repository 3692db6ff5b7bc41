"""``reprism serve``."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from reprism.cli.arguments import parse
from reprism.cli.embedding import NetworkOptions, NetworkSettings
from reprism.cli.galleries import open_audit, open_gallery, parse_duration

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not listened on
_GRACE = 30  # seconds that requests under way have left when the service is told to end


@dataclass
class Arguments:
    """Serve a gallery over HTTP: an API (described at /docs), and a page to search it in a browser.

    Without tokens the service can be reached from this machine only. To open it to others, give each of them a token,
    and encrypt the connection: with --certificate and --key, or behind a proxy that does TLS.
    """

    gallery: str
    """Gallery that reprism index created."""
    model: Path | None = None
    """Model that the gallery was made with, a file or a folder (default: the one noted in the gallery)."""
    host: str = "127.0.0.1"
    """Address to listen on. Any address but this machine's own needs tokens."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    tokens: Path | None = None
    """TOML file with a table for each holder: [alice] token = "…" (or sha256 = "…"), scopes = ["search", "write",
    "erase", "link"], the last, beside search, for people across cameras and for searches by times between them. Others
    on this machine must not be able to read it. REPRISM_TOKENS can hold the same text instead."""
    certificate: Path | None = None
    """Certificate for TLS (PEM file)."""
    key: Path | None = None
    """Key of the certificate (PEM file)."""
    audit: Path | None = None
    """File that notes who searched, added and erased which rows (default: GALLERY.audit.jsonl, beside the gallery)."""
    calibration: Path | None = None
    """Calibration of this gallery's distances (reprism calibrate); gives each match its probability of being right."""
    retain: str | None = None
    """Erase rows older than this age (30d, 12h, 4w), at the start and every hour (default: keep them)."""
    thumbnails: bool = True
    """Keep a small picture of each image that is added."""
    link_every: float = 10.0
    """Seconds between two looks at whether rows came in, which are then taken into the people of the gallery: where
    linking is on (reprism link enable) and people were found before (reprism link run). 0 never does."""
    videos: tuple[Path, ...] = ()
    """Folders of videos that reprism watch read: the page plays the seconds of a match from videos below them, 2 s
    before it to 2 s after (default: no video is shown). A clip shows everybody who was in view, also those who were
    erased from the gallery. H.264 in MP4 is played; nothing outside the folders is, wherever links lead."""
    queue: int = 64
    """Maximum queued and running requests; further ones get 503. A further quarter of it is kept for erasures."""
    queue_per_holder: int | None = None
    """Maximum for each token; further ones get 429 (default: a quarter of --queue; all of it if there is one token)."""
    connections: int = 512
    """Maximum open connections. Beyond it, the one that has waited longest without a request is closed."""
    max_bytes: int = 10 * 2**20
    """Maximum size of an upload, in bytes."""
    max_pixels: int = 2**25
    """Maximum pixels of a picture; larger ones are not decoded."""
    batch_size: int = 16
    """Maximum pictures that the network takes at once."""
    network: NetworkOptions = field(default_factory=NetworkSettings)


def run(argv: Sequence[str]) -> int:
    """Run ``reprism serve`` until it is told to end; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism serve",
        example="reprism serve --gallery gallery\nreprism serve --gallery gallery --host 0.0.0.0 --tokens tokens.toml",
        main=("gallery", "host", "port", "tokens", "calibration"),
    )
    try:
        import uvicorn

        from reprism.service.access import TOKENS_VARIABLE, Access, check_host
        from reprism.service.connections import bounded_protocol, fitting_connections, logging_seldom
    except ImportError as error:
        raise ValueError(f"serving needs {error.name}. Install it: pip install 'reprism[serve]'.") from error

    if arguments.tokens is not None and os.environ.get(TOKENS_VARIABLE):
        raise ValueError(f"both --tokens and {TOKENS_VARIABLE} give tokens: keep to one")
    access = Access.from_environment() if arguments.tokens is None else Access.from_file(arguments.tokens)
    check_host(arguments.host, access)
    if (arguments.certificate is None) != (arguments.key is None):
        raise ValueError("TLS needs both --certificate and --key")

    _check_videos(arguments.videos)
    if not arguments.link_every >= 0:
        raise ValueError(f"--link-every {arguments.link_every}: expected seconds, 0 or more")

    from reprism.evaluation.calibration import Calibration
    from reprism.service.api import ServiceSettings, create_app

    settings = ServiceSettings(
        max_bytes=arguments.max_bytes,
        max_pixels=arguments.max_pixels,
        queue=arguments.queue,
        queue_per_holder=arguments.queue_per_holder,
        batch_size=arguments.batch_size,
        retain=None if arguments.retain is None else parse_duration(arguments.retain, "--retain"),
        thumbnails=arguments.thumbnails,
        link_seconds=arguments.link_every,
        videos=arguments.videos,
    )
    calibration = None if arguments.calibration is None else Calibration.read(arguments.calibration)
    gallery, embedder = open_gallery(
        arguments.gallery, arguments.model, arguments.network, batch_size=arguments.batch_size
    )
    if arguments.connections < 1:
        raise ValueError(f"--connections is {arguments.connections}; it must be more than 0")
    with open_audit(arguments.gallery, arguments.audit) as audit:
        app = create_app(gallery, embedder, settings, calibration, access=access, audit=audit)
        config = uvicorn.Config(
            app,
            host=arguments.host,
            port=arguments.port,
            ssl_certfile=arguments.certificate,
            ssl_keyfile=arguments.key,
            # Paths name identities, also erased ones; the audit log says what is to be known.
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http=bounded_protocol(fitting_connections(arguments.connections)),
            timeout_graceful_shutdown=_GRACE,
            log_level="warning",
        )
        with logging_seldom():
            return _listen(config, app)


def _check_videos(folders: Sequence[Path]) -> None:
    if absent := [folder for folder in folders if not folder.is_dir()]:
        raise ValueError(f"--videos: expected folders, got {absent[0]}, which is not one")
    if folders and find_spec("av") is None:
        raise ValueError("--videos needs PyAV. Install it: pip install 'reprism[video]'.")


def _listen(config: "uvicorn.Config", app: "FastAPI") -> int:
    """Serve until told to end, and print the address once requests are answered; returns the exit status."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(_announcement(config, self.servers[0].sockets[0].getsockname()[1]), flush=True)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.live.close()  # those who listen would be waited for
            await super().shutdown(sockets)

    server = Server(config)
    try:
        server.run()
    except KeyboardInterrupt:  # the usual way to stop it; requests under way have been answered
        print("Stopped.")
    except SystemExit:  # what went wrong at the start is in the log
        return 1
    return 0


def _announcement(config: "uvicorn.Config", port: int) -> str:
    """Say where the service is, and how to stop it."""
    everywhere = config.host in _EVERYWHERE
    host = socket.gethostname() if everywhere else config.host
    address = f"{'https' if config.is_ssl else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"
    others = ", and at every other address of this machine" if everywhere else ""
    return f"Serving at {address}{others}. The API is described at {address}docs. Press Ctrl-C to stop."
