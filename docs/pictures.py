"""Make the pictures of the report, of the search page, of drawn cameras and of their network: drawn people only.

pip install '.[serve,video]' playwright, and a Chromium; then, with the run and the people of the README:

python docs/pictures.py runs/cpu-minutes people
"""

import csv
import io
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright

from reprism import CameraNetwork
from reprism.data import open_dataset
from reprism.data.records import Sample
from reprism.drawn.sites import draw_site, sees_ground
from reprism.drawn.walks import plan_visits, stance
from reprism.linking.held_out import hold_out
from reprism.report.network_page import write_network_page

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


def cameras() -> None:
    """Store a moment of four drawn cameras, with the boxes of the truth; a person's boxes have one colour."""
    with tempfile.TemporaryDirectory() as temporary:
        site = Path(temporary) / "site"
        asked = {"people": 24, "seconds": 60, "crowd": 0.5, "uniforms": 6, "seed": 7}
        options = [word for name, value in asked.items() for word in (f"--{name}", value)]
        subprocess.run(reprism("data", "render", "cameras", site, *options), check=True)
        with (site / "truth.csv").open() as table:
            rows = [row for row in csv.DictReader(table) if float(row["visibility"]) > 0.3]
        moments = {row["frame"] for row in rows}
        seen = {(row["frame"], row["camera"]) for row in rows}
        # The moment at which most cameras see somebody, and then most people are seen.
        frame = max(
            moments, key=lambda at: (sum(key[0] == at for key in seen), sum(row["frame"] == at for row in rows))
        )
        views = []
        for path in sorted(site.glob("cam*.mp4")):
            with av.open(str(path)) as video:
                view = next(itertools.islice(video.decode(video=0), int(frame) - 1, None)).to_image()
            draw = ImageDraw.Draw(view)
            for row in rows:
                if (row["file"], row["frame"]) == (path.name, frame):
                    corners = [int(row[side]) for side in ("left", "top", "right", "bottom")]
                    color = f"hsl({int(row['pid']) * 137 % 360}, 100%, 60%)"
                    draw.rectangle(corners, outline=color, width=2)
                    draw.text((corners[0] + 2, max(corners[1] - 12, 0)), row["pid"], fill=color)
            views.append(view)
        sheet = Image.new("RGB", (2 * views[0].width, 2 * views[0].height))
        for number, view in enumerate(views):
            sheet.paste(view, (number % 2 * view.width, number // 2 * view.height))
        shot = io.BytesIO()
        sheet.save(shot, "PNG")
        keep("cameras", shot.getvalue())


def network(browser: Browser) -> None:
    """Store the graph of four drawn cameras, learned from people who are as easily mistaken as real ones."""
    site = draw_site(4, seed=3)
    rng = np.random.default_rng(0)
    rows, items = [], []
    for visit in plan_visits(site, people=400, seconds=14_400.0, returning=0.2, crowd=0.0, seed=3):
        looks = rng.normal(size=16)
        for camera in site.cameras:
            times = np.arange(visit.times[0], visit.times[-1], 0.5).tolist()
            places = ((time, stance(visit, time)) for time in times)
            seen = [time for time, at in places if at and sees_ground(camera, at.x, at.y, (360, 640))]
            if seen:
                rows.append(looks + 0.5 * rng.normal(size=16))
                items.append(Sample(Path(f"{visit.pid}-{camera.name}.jpg"), visit.pid, camera.name, seen[0]))
    learned = CameraNetwork.learn(np.array(rows), items)
    learned = replace(learned, held_out=hold_out(np.array(rows), items))
    with tempfile.TemporaryDirectory() as temporary:
        shown = write_network_page(learned, Path(temporary) / "network.html")
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(shown.as_uri())
        end = page.get_by_role("heading", name="Overlap").bounding_box()
        keep("network", part(page, 20, end["y"] - 75))


def part(page: Page, top: float, height: float) -> bytes:
    """Return a screenshot of a page from ``top`` on, in CSS pixels."""
    return page.screenshot(full_page=True, clip={"x": 0, "y": top, "width": 1200, "height": height})


def main() -> None:
    """Draw all pictures."""
    run, people = map(Path, sys.argv[1:])
    cameras()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        subprocess.run(reprism("report", run, "--out", folder / "report.html"), check=True)
        sightings(people, folder / "people.csv")
        model, gallery = run / "model.safetensors", folder / "gallery"
        subprocess.run(reprism("index", folder / "people.csv", "--model", model, "--gallery", gallery), check=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        network(browser)
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
