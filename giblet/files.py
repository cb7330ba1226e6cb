"""Writing files whole or not at all, and one sentence where the system refuses."""

import errno
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap
from safetensors import SafetensorError

NOTICE_SECONDS = 5  # of waiting for another process, until the wait is announced
LONGEST_WAIT = 12 * 3600  # seconds
OTHER = "with --out for a run, with --cache-dir (in Python cache_dir) for a cache"
FULL = f"free some space, or choose another disk, {OTHER}"
DENIED = f"choose a folder that you may write to, {OTHER}"
IN_THE_WAY = f"remove what is in the way, or choose another folder, {OTHER}"
NO_LOCKS = f"choose a disk whose files can be locked, {OTHER}"
REMEDIES: dict[int | None, str] = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: FULL,
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.EROFS: DENIED,
    errno.ENOENT: f"choose a folder that exists, {OTHER}",
    errno.ENOTDIR: IN_THE_WAY,
    errno.EISDIR: IN_THE_WAY,
    errno.EEXIST: IN_THE_WAY,
    errno.ELOOP: IN_THE_WAY,
    errno.ENAMETOOLONG: f"choose a shorter name, {OTHER}",
    errno.EIO: f"look after the disk, or choose another one, {OTHER}",
    errno.ENOLCK: NO_LOCKS,
    errno.ENOSYS: NO_LOCKS,
    errno.EINVAL: NO_LOCKS,
    errno.EOPNOTSUPP: NO_LOCKS,
}
NOT_RESERVED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # the disk cannot take bytes ahead
# numpy and safetensors give no errno
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn what the system refuses while `path` is written into one sentence.

    Raises
    ------
    OSError
        Of the same class as the system's (PermissionError, NotADirectoryError, ...), saying which
        file or folder, why, and what to do. An error about another file stays as it is.
    """
    try:
        yield
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None or not _concerns(refusal, Path(path)):
            raise
        reason = refusal.strerror
        sentence = f"{path} cannot be written ({reason}): {REMEDIES[refusal.errno]}."
        raise type(refusal)(sentence) from None


def _refusal(error: BaseException | None) -> OSError | None:
    """What the system refused, if that is the reason of an error."""
    if isinstance(error, RuntimeError) and not error.__suppress_context__:
        error = error.__context__  # torch.save's own message is about positions
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number is None and SHORT_WRITE.match(str(error)):
        number = errno.ENOSPC
    elif isinstance(error, SafetensorError) and (found := RUST_ERROR.search(str(error))):
        number = int(found[1])
    if number is None or number not in REMEDIES:
        return None
    reason = getattr(error, "strerror", None) or os.strerror(number)
    return OSError(number, reason, getattr(error, "filename", None))


def _concerns(refusal: OSError, path: Path) -> bool:
    """Whether it is about `path`, what is in or next to it, or a folder above it."""
    if not isinstance(refusal.filename, str | os.PathLike):
        return True
    try:
        file = Path(os.path.abspath(refusal.filename))
        path = Path(os.path.abspath(path))
    except FileNotFoundError:  # the current folder is gone
        return True
    return file.is_relative_to(path.parent) or path.is_relative_to(file)


def in_words(error: OSError) -> str:
    """Any error of the system as a sentence; one that is a sentence stays as it is."""
    if error.errno is None:
        return str(error).partition("\n")[0]
    name = "a file" if error.filename is None else error.filename
    return (
        f"{name} cannot be read or written ({error.strerror}): check that it is there, whole, and "
        "yours to use."
    )


def expanded(path: str | Path) -> Path:
    """A path whose leading ~ is the user's home, where there is one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no home, or a name that begins with ~
        return Path(path)


def check_writable(folder: str | Path) -> None:
    """Refuse a folder that cannot be made or written to, before what belongs there is computed."""
    folder = Path(folder)
    with writing(folder):
        place = folder
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name next to `path`, which takes its place only on success.

    Raises
    ------
    OSError
        One sentence where the file cannot be written, see `writing`.
    """
    path = Path(path)
    temporary = path.with_name(
        f".{uuid.uuid4().hex}-{path.name}"
    )  # same ending: writers choose formats by it
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Let a new name survive a loss of power, on disks that can."""
    if os.name != "posix":
        return
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextmanager
def alone(path: Path, timeout: float | None = None) -> Iterator[None]:
    """Hold a lock on the making of `path` for as long as the block runs.

    Other processes wait. A wait of more than NOTICE_SECONDS is announced.

    Parameters
    ----------
    timeout : float, optional
        Seconds to wait; default LONGEST_WAIT.

    Raises
    ------
    OSError
        One sentence: TimeoutError where another process keeps the lock, and as in `writing` where
        there can be no lock.
    """
    path = Path(path)
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, mode=0o666)  # whoever may write to the folder may lock
    with writing(file):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _acquire(lock, file, LONGEST_WAIT if timeout is None else timeout)
        except NotImplementedError:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, file: Path, timeout: float) -> None:
    try:
        lock.acquire(timeout=min(NOTICE_SECONDS, timeout))
        return
    except Timeout:
        left = timeout - NOTICE_SECONDS
    if left > 0:
        print(f"waiting for another process, which holds {file}", file=sys.stderr, flush=True)
    try:
        lock.acquire(timeout=max(left, 0))
    except Timeout:
        raise TimeoutError(
            f"another process has held {file} for {timeout:,.0f} s: wait until it has ended, or "
            "end it."
        ) from None


def open_reserved(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy as a memory map, with the space that it takes on the disk reserved.

    Otherwise writing to the map would kill the process with SIGBUS once the disk is full.

    Raises
    ------
    OSError
        Naming the bytes that are needed and free.
    """
    array = open_memmap(path, "w+", dtype, shape)
    n_bytes = path.stat().st_size
    free = shutil.disk_usage(path.parent).free
    if free < n_bytes or not _reserve(path, n_bytes):
        raise OSError(
            errno.ENOSPC, f"{path.name} needs {n_bytes:,} bytes, the disk has {free:,} free"
        )
    return array


def _reserve(path: Path, n_bytes: int) -> bool:
    """Take the bytes of a file on disks that can; False where they are not to be had."""
    if not hasattr(os, "posix_fallocate"):
        return True
    with path.open("rb+") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError as error:
            if error.errno not in (*NOT_RESERVED, errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            return error.errno in NOT_RESERVED
    return True


def load_array(path: str | Path, remedy: str, mmap_mode=None) -> np.ndarray:
    """The array of a .npy.

    Parameters
    ----------
    remedy : str
        What to do about a damaged file: the end of the sentence.

    Raises
    ------
    ValueError
        If the file is damaged or is no .npy.
    """
    try:
        array = np.load(path, mmap_mode=mmap_mode)
    except (ValueError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is damaged or no .npy ({reason}): {remedy}.") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is damaged or no .npy (it holds several arrays): {remedy}.")
    return array


def read_text(path: str | Path) -> str:
    """Text of a file in UTF-8, with or without a byte order mark.

    Raises
    ------
    FileNotFoundError, ValueError
        Where there is no such file, or it is a folder, unreadable, or in another encoding.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing, expected a text file: write it.") from None
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read as a text file ({error.strerror}): mend its name or its access."
        ) from None
    if b"\0" in content:
        raise ValueError(f"{path} is UTF-16 or no text, expected UTF-8: save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} has the byte {content[error.start]:#x} at {error.start}, expected UTF-8: save "
            "it as UTF-8."
        ) from None


def remove_leftovers(folder: Path, names: str) -> None:
    """Delete half-written files `names` (a glob) of killed writers; nobody may be writing."""
    for temporary in folder.glob(f".{'[0-9a-f]' * 32}-{names}"):
        temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it is renamed to `path` only on success.

    If another process wrote `path` in the meantime, theirs stays and ours is dropped.

    Raises
    ------
    OSError
        One sentence where the folder cannot be written, see `writing`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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
