"""Standard output and error as commands print to them: on any terminal, into a file, into a pipe that closes early."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any

# What shells give for a program that a signal ended is 128 and its number.
INTERRUPTED = 130  # by Ctrl-C; typer gives it too
PIPE_CLOSED = 141  # by SIGPIPE


def delivered(command: Callable[[], int]) -> int:
    """Return a command's exit status once all that it printed has been delivered; 1 with one line where it cannot be.

    Whoever reads a pipe may have had enough, as `head` has: that is status 141 and no line. Characters that an encoding
    lacks are printed as escapes, except that ASCII outside of a terminal, which is what an unset locale comes to, makes
    way for UTF-8: what is kept in a file is whole, and in the encoding of every other file.
    """
    own = sys.stdout, sys.stderr
    streams = [stream for stream in own if stream is not None]  # `>&-` leaves none
    _print_anything(streams)
    try:
        status = command()
    except BrokenPipeError:  # of its very last line, about an error
        status = PIPE_CLOSED
    if (sys.stdout, sys.stderr) != own:  # typer ends a command whose pipe is closed, and puts others in their place
        status = PIPE_CLOSED
        sys.stdout, sys.stderr = own
    failures = [failure for stream in streams if (failure := _flush(stream)) is not None]
    if any(isinstance(failure, BrokenPipeError) for failure in failures):
        return PIPE_CLOSED
    for failure in failures:
        print(f"error: cannot write to standard output: {failure.strerror}", file=sys.stderr)
    return 1 if failures else status


def _print_anything(streams: list[Any]) -> None:
    for stream in streams:
        if isinstance(stream, TextIOWrapper):
            bare = codecs.lookup(stream.encoding).name == "ascii" and not stream.isatty()
            stream.reconfigure(encoding="utf-8" if bare else None, errors="backslashreplace")


def _flush(stream: Any) -> OSError | None:
    """Deliver what a stream holds; where it cannot be, let it go, as Python would try and complain at its end."""
    try:
        stream.flush()
    except OSError as failure:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return failure
    return None
