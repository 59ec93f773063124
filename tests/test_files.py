from __future__ import annotations

from pathlib import Path

import pytest

from bertloom.errors import InputError
from bertloom.files import read_json, refuse_existing, whole_file, whole_folder


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fail() -> None:
        with whole_file(file) as beside:
            beside.write_text("new, but")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_who_reads_a_file_while_it_is_replaced_reads_the_old_one_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with file.open() as reader:
        with whole_file(file) as beside:
            beside.write_text("new")
        assert reader.read() == "old"
    assert file.read_text() == "new"


def test_a_folder_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_what_a_library_wrote_for_its_owner_alone(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "in").mkdir()
        (folder / "in" / "private").touch(mode=0o600)
        (folder / "plain").touch()
    modes = [(tmp_path / "out" / name).stat().st_mode & 0o777 for name in ("in/private", "plain")]
    assert modes[0] == modes[1]


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    left, other = tmp_path / ".out.1.part", tmp_path / ".others.1.part"
    left.mkdir(), other.mkdir()
    with whole_folder(tmp_path / "out") as mine:
        assert {file.name for file in tmp_path.iterdir()} == {mine.name, other.name}
        # As a writer of another process would be called.
        mine.rename(left)
        with whole_folder(tmp_path / "out"):
            assert left.is_dir()
        left.rename(mine)
    assert {file.name for file in tmp_path.iterdir()} == {"out", other.name}


def test_a_file_half_written_by_a_killed_writer_goes_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".a.txt.1.part"
    left.write_text("half")
    with whole_file(tmp_path / "a.txt") as mine:
        mine.rename(left)
        with whole_file(tmp_path / "a.txt") as other:
            assert left.exists(), "its writer is alive"
            other.write_text("new")
        left.rename(mine)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_existing_output_is_refused_and_an_empty_folder_is_not(tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir(), empty.mkdir()
    (full / "x").touch()
    with pytest.raises(InputError, match="not written over"):
        refuse_existing(full)
    refuse_existing(empty)
    assert empty.is_dir(), "it is the user's until there is something to put in its place"
    with whole_folder(empty) as folder:
        (folder / "x").touch()
    assert (empty / "x").is_file()
    with pytest.raises(InputError, match="not written over"), whole_folder(empty) as folder:
        (folder / "y").touch()
    assert [file.name for file in empty.iterdir()] == ["x"]


@pytest.mark.parametrize(("content", "said"), [(b"{", "is not JSON"), (b"\xff", "not UTF-8"), (None, "no such file")])
def test_json_that_cannot_be_read_names_its_file(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=f"a.json.*{said}"):
        read_json(file)
