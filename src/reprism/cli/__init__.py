"""The command line: a table of commands, each in a file of its own.

A new command is a file NAME.py here (``_`` for ``-``), with ``run(argv) -> int`` that parses its arguments and returns
the exit status, and a line in ``COMMANDS``. Only the file of the command that was called is imported; what is heavy
(torch) it imports in ``run``, after the arguments were read. What is wrong with what the user gave is raised, as
ValueError or OSError.
"""

import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

from reprism._version import __version__
from reprism.gallery.failures import storage_failure
from reprism.imports import trust
from reprism.terminal import did_you_mean

COMMANDS = {
    "demo": "Draw people, train on them, evaluate, and show what came out; five minutes, nothing else needed.",
    "train": "Train a network as a recipe says.",
    "evaluate": "Rank a data set's gallery for its queries with a trained network: mAP, mINP, CMC.",
    "evaluate-tracks": "Compare tracks of people in video with the truth: HOTA, IDF1, MOTA.",
    "compare": "Show the queries on which two networks differ most, ranked by each.",
    "calibrate": "Find the threshold for a false match rate, and the probability of a match at a distance.",
    "reproduce": "Measure a table of the paper here, beside the published figures.",
    "explain": "Show where in a picture each part of a network looked.",
    "report": "Write a report of a finished run: results, data, curves, hardest queries, how to run it again.",
    "backbones": "Measure what part networks on different backbones cost.",
    "convert": "Rewrite a state dict of the released SCR code as a model file.",
    "export": "Export a network to ONNX, and prove that it describes as before.",
    "extract": "Write descriptors of images and tracks to a Parquet table.",
    "index": "Put images and tracks into a gallery on disk.",
    "watch": "Watch videos and cameras, and put the people in them into a gallery.",
    "search": "Find the people of some pictures in a gallery.",
    "evaluate-links": "Find people among a data set's images without a label, and compare them with the truth.",
    "link": "Learn how long people take from camera to camera; find the people of a gallery by it.",
    "cameras": "Show what a gallery holds of each camera: rows, times, rates, gaps, pictures.",
    "optimize": "Build or refresh a gallery's search index.",
    "compress": "Make a gallery's descriptors narrower, and say what that costs.",
    "erase": "Remove people from a gallery, and their bytes from the disk.",
    "serve": "Serve a gallery over HTTP, with a page to search it in a browser.",
    "data": "Check a data set on disk, find faults in its labels, or draw one.",
}
"""Description of each command, by name; the module of the same name holds it."""

_HELP = """\
usage: reprism COMMAND [OPTIONS]

Person re-identification with spatial and channel parts: given a picture of a person from one camera, find
the same person in what other cameras saw.

commands:
{commands}

  reprism COMMAND --help    explains a command and its options
  reprism --version         prints the version
  --trust MODULE            with any command: let recipes, runs and models that
                            you did not write name code of this Python module

First steps, without any data of your own:  reprism demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0, 1 for an error that is explained, 2 for wrong usage, 130 and 143 where Ctrl-C and SIGTERM ended it, 141 where
    nobody reads on what it prints.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = " ".join(["reprism", *arguments[:1]])
    try:
        try:
            with _plain_warnings(command):
                return _run(arguments)
        finally:
            sys.stdout.flush()  # that nobody reads on is found out here, not when the interpreter ends
    except KeyboardInterrupt as stop:
        print(f"\n{command}: {str(stop) or 'stopped before it was finished; the same command begins or goes on again'}",
              file=sys.stderr)  # fmt: skip
        return 128 + getattr(stop, "signum", signal.SIGINT)
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 128 + 13  # as a shell has it of SIGPIPE
        failure = storage_failure(error)
        if isinstance(error, RuntimeError) and failure is None:
            raise
        # What the user gave is at fault, and the message says how; REPRISM_TRACEBACK=1 shows where it was found.
        if os.environ.get("REPRISM_TRACEBACK"):
            raise
        said = error if failure is None else f"the gallery could not be used: {failure}"
        print(f"{command}: error: {said}", file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] == "--version":
        print(f"reprism {__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = (f"  {name:<15} {summary}" for name, summary in COMMANDS.items())
        print(_HELP.format(commands="\n".join(lines)), end="")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(
            f"reprism: no command {name!r}.{did_you_mean(name, COMMANDS)} There are {', '.join(COMMANDS)} "
            "(see reprism --help)",
            file=sys.stderr,
        )
        return 2
    rest = _trusting(rest)
    run: Callable[[Sequence[str]], int] = import_module(f"reprism.cli.{name.replace('-', '_')}").run
    if name == "serve":  # ends in order by itself
        return run(rest)
    with _sigterm_interrupts():
        return run(rest)


def _trusting(arguments: Sequence[str]) -> list[str]:
    """Take ``--trust MODULE`` out of a command's arguments, wherever it stands, and do what it says."""
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, separator, module = argument.partition("=")
        if name != "--trust":
            rest.append(argument)
            continue
        module = module if separator else next(left, "")
        if not module or module.startswith("-"):
            raise ValueError("expected a module after --trust, such as --trust mymodule")
        trust(module)
    return rest


@contextmanager
def _plain_warnings(command: str) -> Iterator[None]:
    """Write warnings meant for users without the line of code that gave them."""
    before = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *where: Any) -> str:
        return f"{command}: warning: {message}\n" if category is UserWarning else before(message, category, *where)

    warnings.formatwarning = plain  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = before


class _Terminated(KeyboardInterrupt):
    signum = signal.SIGTERM


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: tidied up, in one line."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def interrupt(signum: int, _: FrameType | None) -> None:
        if os.getpid() == process:
            raise _Terminated
        os._exit(128 + signum)  # a process forked from this one

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _nobody_reads() -> bool:
    """Return whether the reader of what is printed has gone, such as ``head``; what is left then goes nowhere."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        gone = any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll (Windows), or no file behind stdout
        return False
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone
