"""Write the commands' help into the reference while the site is built, so that it cannot go stale; and plain names."""

import io
import os
import re
from contextlib import redirect_stdout
from typing import Any
from unittest.mock import patch

from reprism.cli import COMMANDS, main

PAGE = "reference/commands.md"
MARK = "<!-- every command's help -->"
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(<code>)~?")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace the mark in the page of commands; mkdocs calls it for each page."""
    return markdown.replace(MARK, commands()) if page.file.src_uri == PAGE else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Take the roles of docstrings, such as ``:func:``, from before the names that they mark."""
    return ROLE.sub(r"\1", html)


def commands() -> str:
    """Return a Markdown section for each command: its line in ``reprism --help``, and its own help."""
    sections = []
    for name, summary in COMMANDS.items():
        text = shown([name])
        actions = re.findall(r"^  (\w+(?: \w+)?)  +(.+)$", text.partition("\nactions:\n")[2], re.MULTILINE)
        sections.append(section(name, summary, text))
        sections += [section(f"{name} {action}", line, shown([name, *action.split()])) for action, line in actions]
    return "\n\n".join(sections)


def section(name: str, summary: str, text: str) -> str:
    """Return a command's section."""
    return f"## reprism {name}\n\n{summary}\n\n```text\n{text}\n```"


def shown(command: list[str]) -> str:
    """Return what ``reprism COMMAND --help`` prints in a terminal of 80 columns without colors."""
    printed = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": "80", "NO_COLOR": "1"}), redirect_stdout(printed):
        try:
            main([*command, "--help"])
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"reprism {' '.join(command)} --help ended with status {end.code}") from end
    return printed.getvalue().strip("\n")
