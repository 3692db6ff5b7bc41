"""A small network, pictures of drawn people, and services made of them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

import reprism
from reprism.gallery.table import Gallery
from reprism.service.access import Access
from reprism.service.api import ServiceSettings, create_app
from reprism.service.audit import AuditLog

_CONTRAST = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (e) => {
        for (; e; e = e.parentElement) {
            const colour = numbers(getComputedStyle(e).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = texts.nextNode(); node; node = texts.nextNode()) {
        const e = node.parentElement;
        if (!node.data.trim() || e.closest('svg, :disabled, .skip, noscript') || !e.checkVisibility()) continue;
        const [a, b] = [light(numbers(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
        found.push([(a + 0.05) / (b + 0.05), node.data.trim()]);
    }
    return found;
}"""
_CONTROLS = {
    "button", "checkbox", "textbox", "spinbutton", "combobox", "link", "Date", "DateTime", "dialog", "image",
    "progressindicator",
}  # fmt: skip

TOKENS = {scope: f"token-that-may-{scope}-only" for scope in ("search", "write", "erase", "link")}


@pytest.fixture(scope="session")
def model_file(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(64, 32))
    model.train()(torch.randn(8, 3, 64, 32))
    return reprism.save(model.eval(), tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture
def embedder(model_file) -> reprism.Embedder:
    return reprism.Embedder(model_file, precision="fp32", device="cpu")


@pytest.fixture(scope="session")
def pictures(people) -> list[bytes]:
    """JPEG files of drawn people, all different."""
    contents = [path.read_bytes() for path in sorted((people / "bounding_box_test").glob("*.jpg"))]
    assert len(set(contents)) == len(contents) >= 12
    return contents


@pytest.fixture
def gallery(tmp_path, embedder) -> Gallery:
    return Gallery.create(tmp_path / "gallery", embedder)


@pytest.fixture
def access() -> Access:
    """A holder for each scope, named after it."""
    lines = [f'{scope} = {{token = "{token}", scopes = ["{scope}"]}}' for scope, token in TOKENS.items()]
    return Access.from_toml("\n".join(lines), "the test")


@pytest.fixture
def serve(tmp_path, gallery, embedder):
    """Start services: ``serve(settings…)`` gives a client that is on this machine."""
    with ExitStack() as stack:

        def start(*, access=None, calibration=None, **settings) -> TestClient:
            audit = stack.enter_context(AuditLog(tmp_path / "audit.jsonl"))
            app = create_app(gallery, embedder, ServiceSettings(**settings), calibration, access=access, audit=audit)
            return stack.enter_context(TestClient(app, base_url="http://127.0.0.1:8000"))

        yield start


@pytest.fixture
def bearer():
    """The header of a token that has one scope."""
    return lambda scope: {"Authorization": f"Bearer {TOKENS[scope]}"}


@pytest.fixture
def listening() -> Iterator[Callable[[FastAPI], str]]:
    """Have a service listen on a port of its own, for browsers: ``listening(app)`` gives its address."""
    started = []

    def start(app: FastAPI) -> str:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run)
        thread.start()
        started.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join()


@pytest.fixture
def contrasts() -> Callable[[Any], list[tuple[float, str]]]:
    """Tell of a page every visible text, and its contrast with the ground."""
    return lambda page: page.evaluate(_CONTRAST)


@pytest.fixture
def names_of_controls() -> Callable[[Any], list[tuple[str, str]]]:
    """Tell of a page's controls and pictures their roles and names, as screen readers have them."""

    def names(page: Any) -> list[tuple[str, str]]:
        nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node["name"]["value"])
            for node in nodes
            if not node.get("ignored") and node.get("role", {}).get("value") in _CONTROLS
        ]

    return names
