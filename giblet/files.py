"""Writing files whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name next to `path`, which takes its place only on success."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(
        f".{uuid.uuid4().hex}-{path.name}"
    )  # same ending: writers choose formats by it
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":  # the new name itself survives a loss of power
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def alone(path: Path, timeout: float = -1) -> FileLock:
    """A lock on the making of `path`.

    Other processes wait, or after `timeout` seconds get filelock's Timeout.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout)


def remove_leftovers(folder: Path, names: str) -> None:
    """Delete half-written files `names` (a glob) of killed writers; nobody may be writing."""
    for temporary in folder.glob(f".{'[0-9a-f]' * 32}-{names}"):
        temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it is renamed to `path` only on success.

    If another process wrote `path` in the meantime, theirs stays and ours is dropped.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        yield temporary
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
