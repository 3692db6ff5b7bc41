"""Fixtures for several test files: a small data set of drawn people, and a browser."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# One thread for each process and for those that it starts: as many run side by side as there are cores, and threads
# that wait for a core spin. torch reads this when it is loaded, which is later: nothing here imports it at the top.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start too: some tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no process is left alone with one in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Market-1501 folder of drawn people: 12 to train on, 6 to look for, 64×32 pixels."""
    from reprism.drawn.layouts import render_market1501

    return render_market1501(
        tmp_path_factory.mktemp("people") / "market",
        train_identities=12,
        test_identities=6,
        cameras=3,
        images_per_camera=3,
        junk=2,
        distractors=3,
        size=(64, 32),
    )


@pytest.fixture(autouse=True, scope="module")  # before a module's other fixtures
def pytorch_runs_networks() -> Iterator[None]:
    """Have ``auto`` choose PyTorch: tests of other things are not to wait for conversions. tests/engines lifts this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reprism.engines.opening.converts_to_openvino", lambda: False)
        yield


# Not for the whole session: while playwright lives, its event loop runs in this thread, where no test could start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium: the system's, or else playwright's own. Where there is neither, its tests are skipped."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    # No sandbox: it does not start as root. The rest: Chromium's own errands on the network.
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with api.sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=installed, args=quiet)
        except api.Error as error:
            pytest.skip(f"no Chromium starts: {str(error).strip().splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page of playwright, as ``new_page(width=390, **options)``.

    What it asked for is in ``page.requested`` (addresses), what it complained of in ``page.complaints`` (errors on the
    console, exceptions).
    """
    contexts = []

    def open_page(width: int = 1280, height: int = 800, **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        contexts[-1].set_default_timeout(300_000)  # a busy machine draws slowly
        page = contexts[-1].new_page()
        page.requested, page.complaints = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("console", lambda said: said.type == "error" and page.complaints.append(said.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
