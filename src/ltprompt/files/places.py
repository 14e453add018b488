"""Places to write to, asked before long work whether they can be; no heavy library is imported for it."""

from __future__ import annotations

import os
from pathlib import Path

from ltprompt.errors import InputError


def check_new(out: str | Path) -> None:
    """Raise `InputError` where a folder `out` exists already or cannot be made."""
    if Path(out).exists():
        raise InputError(f"{out} already exists; choose another folder or delete it")
    check_folder(out, "out")


def check_file(path: str | Path, field: str) -> None:
    """Raise `InputError` where no file can be written at `path`, which was given as `field`."""
    path = Path(path)
    if path.exists() and not path.is_file():  # a device would be replaced by a file
        raise InputError(f"{path} is no file but a folder or a device; choose another `{field}`")
    check_folder(path.parent, field, path)


def check_folder(folder: str | Path, field: str, wanted: Path | None = None) -> None:
    """Raise `InputError` where `folder` is not one that can be written into, nor can be made.

    field: what it was given as. wanted: the file that is to be written there, to be named in its place.
    """
    folder = Path(folder)
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise InputError(
            f"{wanted or folder} cannot be written: {nearest} is not a folder that lets you; choose another `{field}`"
        )
