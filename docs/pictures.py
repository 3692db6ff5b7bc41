"""Make the README's pictures of the report and of the search page, with drawn people only.

pip install '.[serve]' playwright, and a Chromium; then, with the run and the people of the README:

python docs/pictures.py runs/cpu-minutes people
"""

import io
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from reprism.data import open_dataset

IMAGES = Path(__file__).parent / "images"
PLACES = {1: "gate", 2: "hall", 3: "stairs", 4: "yard"}
PORT = 8765


def reprism(*arguments: object) -> list[str]:
    """A command line."""
    return [sys.executable, "-m", "reprism", *map(str, arguments)]


def sightings(people: Path, table: Path) -> None:
    """A table of the gallery's images: who, where, and when, a walk of some minutes from the gate to the yard."""
    rows = ["path,pid,camid,time"]
    for number, item in enumerate(open_dataset("market1501", people).gallery):
        if item.pid:
            minutes = 7 * int(item.camid) + number % 5
            who, when = f"person {item.pid}", f"2026-05-01T{8 + int(item.pid) % 9:02}:{minutes:02}:00Z"
            rows.append(f"{item.path.absolute()},{who},{PLACES[item.camid]},{when}")
    table.write_text("\n".join(rows))


@contextmanager
def service(gallery: Path) -> Iterator[str]:
    """The address of a service of this gallery."""
    server = subprocess.Popen(reprism("serve", "--gallery", gallery, "--port", PORT))
    try:
        address = f"http://127.0.0.1:{PORT}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/healthz")
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def keep(name: str, *shots: bytes) -> None:
    """Store screenshots, one below the other, as WebP."""
    pictures = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
    whole = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)))
    for number, picture in enumerate(pictures):
        whole.paste(picture, (0, sum(above.height for above in pictures[:number])))
    IMAGES.mkdir(exist_ok=True)
    whole.save(IMAGES / f"{name}.webp", quality=75, method=6)


def part(page: Page, top: float, height: float) -> bytes:
    """Return a screenshot of a page from ``top`` on, in CSS pixels."""
    return page.screenshot(full_page=True, clip={"x": 0, "y": top, "width": 1200, "height": height})


def main() -> None:
    """Draw both pictures."""
    run, people = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        subprocess.run(reprism("report", run, "--out", folder / "report.html"), check=True)
        sightings(people, folder / "people.csv")
        model, gallery = run / "model.safetensors", folder / "gallery"
        subprocess.run(reprism("index", folder / "people.csv", "--model", model, "--gallery", gallery), check=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto((folder / "report.html").as_uri())
        fourth = page.get_by_alt_text("Ranked list of hardest query 4").bounding_box()
        keep("report", part(page, 20, 178), part(page, fourth["y"] - 12, 622))
        with service(gallery) as address:
            page.goto(address)
            page.set_input_files("#picture", min((people / "query").glob("*_c1*.jpg")))
            page.wait_for_selector(".matches li.card")
            page.wait_for_load_state("networkidle")
            keep("search", part(page, 0, 1205))
        browser.close()


if __name__ == "__main__":
    main()
