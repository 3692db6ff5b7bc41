"""Draw ranked lists: the nearest gallery images of a query, each framed by whether it shows the same person.

The figure of every paper in this field.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import ceil

from PIL import Image, ImageDraw, ImageFont

from reprism.data.images import read_image
from reprism.data.records import Item
from reprism.evaluation.lists import RankedList
from reprism.evaluation.part_scale import PartAgreement

RIGHT = (22, 163, 74)
"""RGB of the frame around an image of the query's person."""
WRONG = (220, 38, 38)
"""RGB of the frame around an image of somebody else, or of nobody."""

AGREES, DIFFERS = (15, 118, 110), (194, 65, 12)
"""RGB of the bars of parts; the frames, which say something else, have other colors."""

_NEUTRAL = (100, 116, 139)
_INK = (30, 41, 59)
_PAPER = (255, 255, 255)


def draw_ranked_lists(
    lists: Sequence[RankedList],
    query_samples: Sequence[Item],
    gallery_samples: Sequence[Item],
    captions: Sequence[str] | None = None,
    *,
    parts: Sequence[Sequence[Mapping[str, PartAgreement]]] | None = None,
    size: tuple[int, int] = (160, 80),
) -> Image.Image:
    """Draw ranked lists below each other: the query on the left, then its list, nearest first.

    An image of the query's person has a green frame and a tick, another a red frame and a cross, so that they differ
    without color. Under each picture: its distance, its identity and its camera.

    Args:
        lists: Ranked lists, from :func:`ranked_lists`; one query may occur twice, as ranked by two models.
        query_samples: Samples that the lists' queries are indices of.
        gallery_samples: Samples that the lists' gallery images are indices of.
        captions: A line above each list (default: none).
        parts: For each list and each of its matches, how well each part agrees; drawn as a bar for each part under the
            match. Its height is the percentile among strangers: full where all are nearer. Filled: agrees; hollow:
            unclear; striped: differs.
        size: Height and width in pixels that each picture is resized to, at least (40, 20).

    Returns:
        An RGB image, on white; ``.save("lists.png")`` writes it.

    Raises:
        ValueError: No list, another number of captions than of lists, or size is too small.
        ImageError: A sample's file cannot be read; names it.
    """
    if not lists:
        raise ValueError("no ranked list was given to draw")
    if captions is not None and len(captions) != len(lists):
        raise ValueError(f"there are {len(lists)} ranked lists but {len(captions)} captions")
    if parts is not None and [len(some) for some in parts] != [len(one.gallery) for one in lists]:
        raise ValueError("expected parts for each list, one entry for each of its matches")
    if size[0] < 40 or size[1] < 20:
        raise ValueError(f"size must be (height, width) of at least (40, 20) pixels, but is {size}")
    grid = _Grid(size, max(len(one.gallery) for one in lists), captions is not None, parts is not None)
    canvas = Image.new("RGB", grid.canvas(len(lists)), _PAPER)
    for row, one in enumerate(lists):
        if captions is not None:
            grid.caption(canvas, row, captions[row])
        sample = query_samples[one.query]
        grid.picture(canvas, row, 0, sample, _NEUTRAL, "query")
        for rank, (index, distance, correct) in enumerate(
            zip(one.gallery, one.distances, one.correct, strict=True), start=1
        ):
            sample = gallery_samples[index]
            where = grid.picture(canvas, row, rank, sample, RIGHT if correct else WRONG, f"{distance:.3f}")
            _mark(canvas, where, size[1] // 5, correct)
            if parts is not None:
                grid.bars(canvas, row, rank, list(parts[row][rank - 1].values()))
    return canvas


class _Grid:
    """Lays out a row per list: a caption and cells, each of a framed picture, two lines of text and bars."""

    def __init__(self, size: tuple[int, int], k: int, captioned: bool, barred: bool = False) -> None:
        self.height, self.width = size
        self.frame = max(3, self.width // 20)
        self.gap = max(4, self.width // 12)
        text = max(10, self.width // 6)
        self.font = ImageFont.load_default(text)
        self.line = round(1.25 * text)
        self.heading = self.line + self.gap if captioned else 0
        self.k = k
        self.bar = self.height // 4 if barred else 0
        self.framed = (self.width + 2 * self.frame, self.height + 2 * self.frame)
        self.cell = (self.framed[0] + self.gap, self.framed[1] + 2 * self.line + self.bar)
        # Bars stand off from the next list's caption.
        self.pitch = self.heading + self.cell[1] + self.gap * (2 if barred and captioned else 1)

    def canvas(self, rows: int) -> tuple[int, int]:
        """Return the width and height of the whole."""
        # The query stands off from its list by one more gap.
        width = (self.k + 1) * self.cell[0] + 2 * self.gap
        return width, rows * self.pitch + self.gap

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Return left and top of a cell; column 0 is the query's."""
        left = self.gap + column * self.cell[0] + (self.gap if column else 0)
        return left, self.gap + row * self.pitch + self.heading

    def caption(self, canvas: Image.Image, row: int, text: str) -> None:
        left, top = self.corner(row, 0)
        text = self.fitted(text, canvas.width - 2 * self.gap)
        ImageDraw.Draw(canvas).text((left, top - self.heading), text, _INK, self.font)

    def picture(
        self,
        canvas: Image.Image,
        row: int,
        column: int,
        sample: Item,
        color: tuple[int, int, int],
        title: str,
    ) -> tuple[int, int]:
        """Draw one cell, and return left and top of the picture in it."""
        left, top = self.corner(row, column)
        draw = ImageDraw.Draw(canvas)
        right, bottom = left + self.width + 2 * self.frame, top + self.height + 2 * self.frame
        draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
        image = Image.fromarray(read_image(sample.path).permute(1, 2, 0).numpy())
        inside = (left + self.frame, top + self.frame)
        canvas.paste(image.resize((self.width, self.height), Image.Resampling.BICUBIC), inside)
        who = f"{sample.pid}" if sample.camid is None else f"{sample.pid} · c{sample.camid}"
        for number, (text, ink) in enumerate(((title, _INK), (who, _NEUTRAL))):
            at = ((left + right) / 2, bottom + number * self.line + self.line / 2)
            draw.text(at, self.fitted(text, right - left), ink, self.font, anchor="mm")
        return inside

    def bars(self, canvas: Image.Image, row: int, column: int, parts: Sequence[PartAgreement]) -> None:
        """Draw a bar for each part below a cell's text, over a line; of full height where all strangers are nearer."""
        left, top = self.corner(row, column)
        floor = top + self.cell[1] - 1
        draw = ImageDraw.Draw(canvas)
        draw.line((left, floor, left + self.framed[0] - 1, floor), _NEUTRAL)
        for index, part in enumerate(parts):
            start, end = (left + self.framed[0] * number // len(parts) for number in (index, index + 1))
            # A part that is nearer than all strangers still shows.
            rise = max(2, round(part.strangers / 100 * (self.bar - 4)))
            box = (start, floor - rise, max(start, end - 2), floor)
            if part.verdict == "agrees":
                draw.rectangle(box, fill=AGREES)
            elif part.verdict == "unclear":
                draw.rectangle(box, outline=_NEUTRAL)
            else:
                for level in range(floor, floor - rise - 1, -3):
                    draw.rectangle((box[0], max(box[1], level - 1), box[2], level), fill=DIFFERS)

    def fitted(self, text: str, width: int) -> str:
        """Return the text, with its end replaced by dots where it is wider than ``width`` pixels."""
        text = " ".join(text.split())  # one line, whatever an identity is called
        if self.font.getlength(text) <= width:
            return text
        # The longest beginning that fits; its length only grows with its letters.
        fits = bisect_right(range(len(text)), width, key=lambda end: ceil(self.font.getlength(text[:end] + "...")))
        return text[: max(0, fits - 1)] + "..."


def _mark(canvas: Image.Image, corner: tuple[int, int], side: int, correct: bool) -> None:
    """Draw a tick or a cross in the picture's upper left corner, on the frame's color."""
    left, top = corner
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left, top, left + side, top + side), fill=RIGHT if correct else WRONG)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * side, top + y * side

    strokes = (
        [[at(0.15, 0.5), at(0.4, 0.75), at(0.85, 0.2)]]
        if correct
        else [[at(0.2, 0.2), at(0.8, 0.8)], [at(0.2, 0.8), at(0.8, 0.2)]]
    )
    for stroke in strokes:
        draw.line(stroke, fill=_PAPER, width=max(2, side // 7), joint="curve")
