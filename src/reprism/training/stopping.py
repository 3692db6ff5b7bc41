"""Ctrl-C and SIGTERM during a run: noted at once, obeyed after the next step with a resume point."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped a run; the message says which, and how to resume.

    Attributes:
        signum: The signal. A process that ends by it exits with 128 + ``signum``: 130 or 143.
    """

    def __init__(self, signum: int, remedy: str) -> None:
        reason = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        super().__init__(f"stopped by {reason}. {remedy}")
        self.signum = signum


def how_to_resume(folder: Path) -> str:
    """Return the command that resumes the run in a folder, as a sentence."""
    # The "./" tells a folder from a recipe of the same name.
    path = folder if folder.is_absolute() or len(folder.parts) > 1 else f"./{folder}"
    return f"Resume with: reprism train {shlex.quote(str(path))} --resume"


class Stop(BaseException):
    """Ends Lightning's loops. Not a KeyboardInterrupt: Lightning turns those into an exit with status 1."""


class StopRequest:
    """Takes note of SIGINT and SIGTERM. A second signal ends the run where it is.

    Attributes:
        signum: The signal that came; 0 before one did.
        quiet: Print nothing, as all but one of several processes should.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.quiet = False
        self._process = os.getpid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for the signals inside, and restore their handlers afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may; whoever runs it sees to signals
            return
        before = [signal.getsignal(signum) for signum in _SIGNALS]
        self.listen()
        try:
            yield
        finally:
            for signum, handler in zip(_SIGNALS, before, strict=True):
                signal.signal(signum, handler)

    def listen(self) -> None:
        """Handle the signals, again after Lightning took SIGTERM: it would stop between steps and save nothing."""
        if threading.current_thread() is threading.main_thread():
            for signum in _SIGNALS:
                signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker process just forked
        if self.signum:
            raise Stop
        self.signum = signum
        if self.quiet:
            return
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nStopping after this step, with a point to resume from. Once more: at once.\n")
