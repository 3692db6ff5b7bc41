"""Write HTML pages from templates: each is one file that loads nothing, to be read offline, on a phone or on paper.

The templates and their one stylesheet lie in ``templates/``. Images are data URIs. One page has a
script, for answers by keyboard: its own, named by its digest, and no other would run.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from reprism._version import __version__


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a page.

    Attributes:
        uri: Data URI, as :func:`figure_uri` and :func:`picture_uri` return it.
        alt: Description of the image, for people who cannot see it.
        caption: Line below the image; empty: none.
        least_width: CSS pixels; on a narrower screen the image is moved sideways, not shrunk further.
        about: Paragraph above the image; empty: none.

    Raises:
        ValueError: The address is no data URI, so the page would not be self-contained.
    """

    uri: str
    alt: str
    caption: str = ""
    least_width: int = 0
    about: str = ""

    def __post_init__(self) -> None:
        if not self.uri.startswith("data:"):
            raise ValueError(f"expected a data URI for an image of a page, got {self.uri[:60]!r}")


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        header: One title per column; if all are empty, the table has no line of titles.
        rows: Rows of cells, as many as the header has.
        numbers: Set the other columns flush right, as figures are.

    Raises:
        ValueError: A row has more or fewer cells than the header.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    numbers: bool = True

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"expected {len(self.header)} cells in each row of a table, got {len(row)}: {row!r}")


@dataclass(frozen=True, slots=True)
class Code:
    """Lines of code.

    Attributes:
        text: The lines.
        language: Name of the language, for Markdown.
        summary: If not empty, the lines are folded away under it on a screen.
    """

    text: str
    language: str
    summary: str = ""


# Everything is escaped but what a template itself writes, and a name that a template misspells is an error.
_environment = Environment(
    loader=PackageLoader("reprism.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_environment.tests.update(
    picture=lambda piece: isinstance(piece, Picture),
    table=lambda piece: isinstance(piece, Table),
    code=lambda piece: isinstance(piece, Code),
)


def render(template: str, **values: object) -> str:
    """Return a whole HTML document.

    Args:
        template: File name of the page's template, such as ``"lists.html"``.
        values: Values that the template shows, by name; ``title`` always.

    Raises:
        jinja2.UndefinedError: The template shows a value that is not given.
    """
    return _environment.get_template(template).render(version=__version__, **values)


def figure_uri(figure: Figure) -> str:
    """Return a matplotlib figure as a data URI: SVG on a transparent ground, the same text for the same figure."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "reprism"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return data_uri("image/svg+xml", buffer.getvalue())


def picture_uri(picture: Image.Image) -> str:
    """Return an image as a data URI: JPEG, because the noise of photographs makes a PNG several times larger."""
    buffer = io.BytesIO()
    # No subsampling of color: it would smear the frames of ranked lists into the pictures.
    picture.convert("RGB").save(buffer, format="JPEG", quality=88, subsampling=0, optimize=True)
    return data_uri("image/jpeg", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Return the data URI of a file's content; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
