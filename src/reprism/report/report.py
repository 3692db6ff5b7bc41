"""Reports: one HTML file that holds everything it shows, to be read offline, on a phone or on paper.

Three layers: charts (data -> matplotlib figure), pieces of markup (data -> :class:`Html`, escaped), and :func:`page`,
which puts sections of them together. No script, no request to anywhere: images are data URIs.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from reprism._version import __version__


class Html(str):
    """Text that is markup already. Any other string is escaped where it enters the page."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page.

    Attributes:
        title: Its heading, plain text.
        body: Its pieces, top to bottom; a plain string becomes a paragraph.
    """

    title: str
    body: Sequence[str]


# ---- pieces of markup ------------------------------------------------------------------------------------------------


def escaped(text: object) -> Html:
    """``text`` as markup that shows it as it is; :class:`Html` stays itself."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def paragraph(*pieces: str) -> Html:
    """A paragraph of the pieces, one after the other."""
    return Html(f"<p>{''.join(map(escaped, pieces))}</p>")


def subheading(text: str) -> Html:
    """A heading inside a section."""
    return Html(f"<h3>{escaped(text)}</h3>")


def code(text: str) -> Html:
    """A name or a command inside a line."""
    return Html(f"<code>{escaped(text)}</code>")


def code_block(text: str) -> Html:
    """Lines of code or of commands."""
    return Html(f"<pre><code>{escaped(text.strip())}</code></pre>")


def bullets(items: Sequence[str]) -> Html:
    """A list without numbers."""
    return Html(f"<ul>{''.join(f'<li>{escaped(item)}</li>' for item in items)}</ul>")


def details(summary: str, *body: str) -> Html:
    """Something folded away under its summary on a screen; on paper it lies open."""
    return Html(f"<details><summary>{escaped(summary)}</summary>{''.join(map(_block, body))}</details>")


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: bool = True) -> Html:
    """A table whose first column names its rows.

    Args:
        header: One title per column; all empty: no line of titles.
        rows: As many cells each; whatever is no :class:`Html` is shown as ``str`` gives it.
        numbers: Whether the other columns hold figures, which are set flush right.

    Raises:
        ValueError: A row has more or fewer cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a table of {len(header)} columns was given a row of {len(row)}: {row!r}")
    titles = "".join(f'<th scope="col">{escaped(title)}</th>' for title in header)
    head = f"<thead><tr>{titles}</tr></thead>" if any(header) else ""
    body = "".join(
        f'<tr><th scope="row">{escaped(first)}</th>{"".join(f"<td>{escaped(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    kind = ' class="numbers"' if numbers else ""
    return Html(f'<div class="wide"><table{kind}>{head}<tbody>{body}</tbody></table></div>')


def image(uri: str, alt: str, caption: str = "", *, least_width: int = 0) -> Html:
    """A picture with its caption.

    Args:
        uri: What :func:`figure_uri` or :func:`picture_uri` gave.
        alt: What it shows, for those who cannot see it.
        caption: A line below.
        least_width: In CSS pixels; on a narrower screen the picture is moved sideways, not shrunk further.

    Raises:
        ValueError: The address is no data URI, so the page would not be self-contained.
    """
    if not uri.startswith("data:"):
        raise ValueError(f"an image of a report must be a data URI, not {uri[:60]!r}")
    style = f' style="min-width:{least_width:d}px"' if least_width else ""
    below = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    shown = f'<img src="{escaped(uri)}" alt="{escaped(alt)}"{style}>'
    return Html(f'<figure><div class="wide">{shown}</div>{below}</figure>')


def side_by_side(*pieces: str) -> Html:
    """Pieces in a row, where the screen is wide enough."""
    return Html(f'<div class="row">{"".join(f"<div>{_block(piece)}</div>" for piece in pieces)}</div>')


def headline(figures: Sequence[tuple[str, str, str]]) -> Html:
    """Large figures: of each its name, its value, and a remark."""
    cells = "".join(
        f"<div><span>{escaped(name)}</span><strong>{escaped(value)}</strong><small>{escaped(remark)}</small></div>"
        for name, value, remark in figures
    )
    return Html(f'<div class="headline">{cells}</div>')


def _block(piece: str) -> Html:
    return piece if isinstance(piece, Html) else paragraph(piece)


# ---- pictures --------------------------------------------------------------------------------------------------------


def figure_uri(figure: Figure) -> str:
    """A matplotlib figure as a data URI (SVG on a transparent ground; the same figure gives the same text)."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "reprism"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer.getvalue())


def picture_uri(picture: Image.Image) -> str:
    """A picture of pixels as a data URI (JPEG: photographs' noise makes a PNG several times larger)."""
    buffer = io.BytesIO()
    # No subsampling of colour: it would smear the frames of ranked lists into the pictures.
    picture.convert("RGB").save(buffer, format="JPEG", quality=88, subsampling=0, optimize=True)
    return _data_uri("image/jpeg", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


# ---- charts ----------------------------------------------------------------------------------------------------------

# Colours that keep their contrast on a light page and on a dark one: a chart cannot know on which it is shown.
_GREY = "#7b8490"
COLOURS = ("#3b82f6", "#e2711d", "#2a9d6f", "#a855c7", "#c9a227")


def read_log(run: str | Path) -> dict[str, list[tuple[int, float]]]:
    """What a training run logged, by name: (step, value) pairs in the order of the steps.

    Args:
        run: A run folder; the logs of all its sittings, ``csv/version_*/metrics.csv``, are read. Where a resumed run
            went over the same steps again, the later sitting counts.
    """
    sittings = sorted(Path(run).glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    curves: dict[str, dict[int, float]] = {}
    for sitting in sittings:
        with sitting.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    if name != "step" and text:
                        curves.setdefault(name, {})[int(row["step"])] = float(text)
    return {name: sorted(curve.items()) for name, curve in curves.items()}


def loss_figure(log: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Draw the losses of a run over its steps, each smoothed; ``log`` is what :func:`read_log` gives."""
    titles = {"loss/cross_entropy": "cross-entropy", "loss/triplet": "batch-hard triplet"}
    # A loss of somebody's own has terms of its own; the total comes first.
    logged = sorted((name for name in log if name.startswith("loss/")), key=lambda name: name != "loss/total")
    names = {name: titles.get(name, name.removeprefix("loss/").replace("_", " ")) for name in logged}
    figure, axes = chart("step", "loss")
    for (name, label), colour in zip(names.items(), COLOURS, strict=False):
        curve = [(step, value) for step, value in log.get(name, ()) if math.isfinite(value)]
        if curve:
            steps, values = zip(*curve, strict=True)
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
            axes.plot(steps, _smoothed(values), color=colour, label=label)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    _legend(figure)
    return figure


def cmc_figure(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Cumulative matching characteristics, by name: the k-th value is the fraction found by rank k."""
    figure, axes = chart("rank k", "queries with a match among the first k")
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(range(1, len(curve) + 1), curve, color=colour, label=name, marker="o", markersize=3)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return figure


def evaluations_figure(evaluations: Sequence[Mapping[str, Any]]) -> Figure:
    """mAP and rank-1 over epochs, from what ``metrics.json`` of a run lists under ``evaluations``."""
    figure, axes = chart("epoch", "on query and gallery")
    epochs = [each["epoch"] for each in evaluations]
    for (key, label), colour in zip({"rank1": "rank-1", "mAP": "mAP"}.items(), COLOURS, strict=False):
        axes.plot(epochs, [each[key] for each in evaluations], color=colour, label=label, marker="o", markersize=4)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return figure


def chart(x: str, y: str) -> tuple[Figure, Any]:
    """An empty chart and its axes, with their labels, in the page's manner."""
    # A Figure of its own, not pyplot's: nothing global is touched, and no display is looked for.
    figure = Figure(figsize=(4.8, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=_GREY)
    axes.set_ylabel(y, color=_GREY)
    axes.tick_params(colors=_GREY)
    axes.grid(color=_GREY, alpha=0.2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GREY)
    return figure, axes


def _legend(figure: Figure) -> None:
    # Above the axes: no place inside them is free for every curve.
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=_GREY)


def _smoothed(values: Sequence[float]) -> list[float]:
    """Means over about a twentieth of the values, centred: a mean of the past alone would lag behind a fall."""
    reach = len(values) // 40
    means = []
    for place in range(len(values)):
        near = min(reach, place, len(values) - 1 - place)
        window = values[place - near : place + near + 1]
        means.append(sum(window) / len(window))
    return means


# ---- the page --------------------------------------------------------------------------------------------------------


def page(title: str, sections: Sequence[Section], *, lead: Sequence[str] = ()) -> str:
    """A whole HTML document.

    Args:
        title: Of the document, and its first heading.
        sections: What it says, in order.
        lead: Pieces between the heading and the first section.
    """
    parts = "\n".join(
        f'<section id="s{number}">\n<h2>{escaped(section.title)}</h2>\n'
        + "\n".join(map(_block, section.body))
        + "\n</section>"
        for number, section in enumerate(sections, start=1)
    )
    contents = " ".join(
        f'<a href="#s{number}">{escaped(section.title)}</a>' for number, section in enumerate(sections, start=1)
    )
    opening = "\n".join(map(_block, lead))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Also tells the browser to load nothing, should something ever slip through the escaping.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escaped(title)}</h1>\n{opening}\n</header>\n<nav>{contents}</nav>\n{parts}\n"
        f"<footer>Written by Reprism {escaped(__version__)}.</footer>\n</main>\n</body>\n</html>\n"
    )


_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1c2430; --soft: #5d6876; --line: #e1e5ea;
  --accent: #2563eb; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #12161c; --card: #1a2028; --ink: #e4e8ee; --soft: #98a3b1; --line: #2d3641; --accent: #7aa8ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1, h2, p, nav a, figcaption { overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0 .75rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 0 0 .75rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .6rem 0; max-width: 48rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1.25rem 0; font-size: .9rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: 1.2rem 1.3rem;
  margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-size: .94rem; }
th, td { text-align: left; padding: .35rem 1.1rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tbody th { font-weight: 500; }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums;
  padding: .35rem 0 .35rem 1.4rem; white-space: nowrap; }
figure { margin: .75rem 0; }
figure img { display: block; width: 100%; height: auto; border-radius: .3rem; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .4rem; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: .5rem 1.5rem; }
.headline { display: flex; flex-wrap: wrap; gap: .9rem; margin: 1.1rem 0; }
.headline div { flex: 1 1 10rem; background: var(--card); border: 1px solid var(--line); border-radius: .7rem;
  padding: .8rem 1.1rem; }
.headline span, .headline small { display: block; color: var(--soft); font-size: .85rem; }
.headline strong { display: block; font-size: 1.8rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .9em;
  overflow-wrap: anywhere; }
pre { background: var(--ground); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem;
  overflow-x: auto; }
pre code { overflow-wrap: normal; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--accent); }
footer { color: var(--soft); font-size: .85rem; margin-top: 1.5rem; }
@page { margin: 15mm; }
@media print {
  :root { color-scheme: light; --ground: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc; --accent: #000; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  section { border: 0; padding: 0; }
  h2, h3, p, figure, table, tr { break-inside: avoid; }
  h2, h3, summary, p:has(+ figure), p:has(+ .wide) { break-after: avoid; }
  .numbers td { white-space: normal; overflow-wrap: anywhere; }
  .wide { overflow: visible; }
  figure img { min-width: 0 !important; }
  pre { white-space: pre-wrap; font-size: .85rem; line-height: 1.35; }
  details::details-content { content-visibility: visible; }
}
"""
