"""Files and folders that are whole or not there: written beside, flushed, renamed."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from bertloom.errors import InputError

TAKEN = "is there already and is not written over; name another or remove it"


def flush(path: Path) -> None:
    """Have the operating system put a file or a folder's entries on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _said_by_the_system(path: Path) -> Iterator[None]:
    """Libraries in Rust tell of a full disk in errors of their own; all of them become `OSError` with a path."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        told = re.search(r"os error (\d+)", str(error))
        if number is None and told:
            number = int(told[1])
        if number is None:
            raise
        if number in (errno.ENOTEMPTY, errno.EEXIST) and path.exists():
            raise InputError(TAKEN, path) from None
        named = str((isinstance(error, OSError) and error.filename) or path)
        # What is written beside is nothing that the user named.
        ours = named.startswith(str(path.with_name(f".{path.name}.")))
        raise OSError(number, os.strerror(number), str(path) if ours else named) from error


@contextmanager
def held(path: Path) -> Iterator[bool | None]:
    """Hold a path while this process is in the block and alive; False where another does, None where nothing can be."""
    handle = os.open(path, os.O_RDONLY)
    free: bool | None = True
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:
            free = None
        yield free
    finally:
        os.close(handle)


def _beside(path: Path) -> Path:
    """Where `path` is written before it takes its name; what a writer of it that was killed left there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(FileNotFoundError), held(left) as free:
            if free:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place in one step if nothing goes wrong."""
    beside = _beside(path)
    with _said_by_the_system(path):
        beside.touch()
    try:
        with held(beside), _said_by_the_system(path):
            yield beside
            flush(beside)
            os.replace(beside, path)
            flush(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` to fill; it is renamed to `path`, which must not be there yet."""
    beside = _beside(path)
    with _said_by_the_system(path):
        beside.mkdir()
    try:
        with held(beside), _said_by_the_system(path):
            yield beside
            # Some libraries write files that their owner alone may read.
            readable = beside.stat().st_mode & 0o666
            for file in sorted(beside.rglob("*")):
                if file.is_file():
                    file.chmod(readable)
                flush(file)
            flush(beside)
            os.rename(beside, path)
            flush(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raise if an output folder holds something already: nothing is ever written over."""
    if os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
        raise InputError(TAKEN, path)
    require_folder(path)


def require_folder(path: Path) -> None:
    """Raise if a folder cannot be there, because it or one above it is a file."""
    nearest = next((one for one in (path, *path.parents) if one.exists()), None)
    if nearest is not None and not nearest.is_dir():
        raise InputError("is a file, a folder needed to write in", nearest)


def remains(folder: Path) -> list[Path]:
    """What writers that were killed left half done in a folder."""
    return sorted(folder.glob(".*.part"))


def remove_remains(folder: Path) -> None:
    """Remove it, a link as a link."""
    for left in remains(folder):
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def json_line(value: Any, stream: TextIO) -> str:
    """`value` as a line of JSON in letters that a stream has."""
    # A stream in memory has no encoding.
    whole = (stream.encoding or "utf-8").lower().startswith("utf")
    return json.dumps(value, ensure_ascii=not whole) + "\n"


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, whole or not at all."""
    with whole_file(path) as beside:
        beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_text(path: Path) -> str:
    """The text of a file; raises `InputError`, with the line where it is not UTF-8."""
    try:
        data = path.read_bytes()
        return data.decode().removeprefix("\ufeff")
    except FileNotFoundError:
        raise InputError("no such file", path) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"byte 0x{data[error.start]:02x} is not UTF-8", path, line) from None


def read_json(path: Path) -> Any:
    """The JSON value of a file; raises `InputError` with the line where it is malformed."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error.msg}", path, error.lineno) from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"is not JSON: {error}", path) from None


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
