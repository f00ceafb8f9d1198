"""Walking folders: every file once, in order, whatever links, pipes and servers have put there."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.data.sources.walk import LeftOut, folders_in, walk
from alexnet.files import open_regular
from conftest import deep_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes are made differently there")


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def walked(folder: Path, **options: object) -> tuple[list[str], list[str]]:
    """Files relative to the folder, and the lines about what was left out."""
    left_out = LeftOut()
    files = [os.path.relpath(file, folder) for file in walk(folder, left_out, **options)]  # type: ignore[arg-type]
    return files, left_out.lines()


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Folders and files mixed: the order of paths compared part by part."""
    write(tmp_path, "b/1.jpg", "a-1.jpg", "a/z.jpg", "a/b/c.jpg", "c.jpg", "10.jpg", "9.jpg")
    files, lines = walked(tmp_path)
    assert files == sorted(files, key=lambda name: name.split("/"))
    assert files == ["10.jpg", "9.jpg", "a/b/c.jpg", "a/z.jpg", "a-1.jpg", "b/1.jpg", "c.jpg"]
    assert not lines


def test_link_loops_end_and_are_counted(tmp_path: Path) -> None:
    """Two loops make 2^n paths to one picture."""
    write(tmp_path, "a/x.png", "b/y.png")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "b/up").symlink_to("..")
    (tmp_path / "b/self").symlink_to(".")
    files, lines = walked(tmp_path)
    assert files == ["a/x.png", "b/y.png"]
    assert lines == [f"Left out: 3 links to folders that are already included, such as {tmp_path / 'a/up'}"]


def test_a_link_out_of_a_class_and_into_the_source_is_not_followed(tmp_path: Path) -> None:
    """Otherwise b's pictures are labelled a."""
    write(tmp_path, "a/x.png", "b/y.png")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/other").symlink_to("../b")
    files, lines = walked(tmp_path / "a", source=[tmp_path])
    assert files == ["x.png"]
    assert "2 links to folders" in lines[0]


def test_links_to_elsewhere_are_followed_once(tmp_path: Path) -> None:
    """People make data sets of links."""
    write(tmp_path, "elsewhere/more/1.jpg", "elsewhere/2.jpg", "photos/0.jpg")
    photos = tmp_path / "photos"
    (photos / "single.jpg").symlink_to("../elsewhere/2.jpg")
    (photos / "linked").symlink_to("../elsewhere/more")
    (photos / "linked again").symlink_to("../elsewhere/more")
    (photos / "same.jpg").symlink_to("0.jpg")
    files, lines = walked(photos)
    assert files == ["0.jpg", "linked/1.jpg", "single.jpg"]
    assert len(lines) == 2


def test_a_link_into_a_hidden_store_is_a_picture(tmp_path: Path) -> None:
    """git-annex keeps the files in .git and links to them."""
    write(tmp_path, ".git/annex/1.jpg")
    (tmp_path / "1.jpg").symlink_to(".git/annex/1.jpg")
    assert walked(tmp_path)[0] == ["1.jpg"]


def test_a_link_to_nowhere_is_for_the_reader_to_report(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    assert walked(tmp_path)[0] == ["circle.jpg", "gone.jpg"]


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.parent.parent / "pipe")
    path.symlink_to(path.parent.parent / "pipe")


@pytest.mark.parametrize("make", [make_pipe, make_socket, link_to_device, link_to_pipe])
def test_what_is_not_a_file_is_left_out_and_cannot_be_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write(tmp_path, "cat/1.jpg")
    make(tmp_path / "cat/p.jpg")
    files, lines = walked(tmp_path / "cat")
    assert files == ["1.jpg"]
    assert lines == [f"Left out: 1 pipe, socket or device: {tmp_path / 'cat/p.jpg'}"]
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "cat/p.jpg")


def test_open_regular(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg")
    with open_regular(tmp_path / "1.jpg") as file:
        assert file.read() == b"1.jpg"
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_a_file_that_becomes_a_pipe_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the name and the opening."""
    write(tmp_path, "p.jpg")
    whole = (tmp_path / "p.jpg").stat()
    (tmp_path / "p.jpg").unlink()
    os.mkfifo(tmp_path / "p.jpg")
    monkeypatch.setattr(Path, "stat", lambda path: whole)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "p.jpg")


@pytest.mark.parametrize(
    "folder", ["@eaDir", "@EADIR", "#recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found", ".thumbnails", ".AppleDouble"]
)
def test_thumbnail_folders_are_passed_over(tmp_path: Path, folder: str) -> None:
    write(tmp_path, "dog/1.jpg", f"dog/{folder}/1.jpg/SYNOFILE_THUMB_S.jpg", f"{folder}/2.jpg")
    files, lines = walked(tmp_path)
    assert files == ["dog/1.jpg"]
    assert len(lines) == 1
    assert "2" in lines[0]
    assert str(tmp_path / folder) in lines[0]


def test_system_files_are_passed_over(tmp_path: Path) -> None:
    """Only those named like a picture are worth a word."""
    write(tmp_path, "1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "._1.jpg", "DESKTOP.INI")
    files, lines = walked(tmp_path)
    assert files == ["1.jpg"]
    assert lines == [f"Left out: 1 hidden file: {tmp_path / '._1.jpg'}"]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who can open everything."""
    write(tmp_path, "open/1.jpg", "shut/2.jpg")
    scan = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    files, lines = walked(tmp_path)
    assert files == ["open/1.jpg"]
    assert lines == [f"Left out: 1 folder that cannot be opened (Permission denied): {tmp_path / 'shut'}"]


def test_folders_nested_deeper_than_pythons_stack(tmp_path: Path) -> None:
    with deep_folder(tmp_path, 1500):
        Path("1.jpg").write_bytes(b"")
        assert [Path(name).name for name in walked(tmp_path)[0]] == ["1.jpg"]


def test_folders_in_leaves_out_links_into_the_source(tmp_path: Path) -> None:
    """val/cat that is a link to train/cat would test on what was trained on."""
    write(tmp_path, "train/cat/1.jpg", "val/dog/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "val/cat").symlink_to("../train/cat")
    (tmp_path / "val/bird").symlink_to("../elsewhere")
    left_out = LeftOut()
    found = folders_in(tmp_path / "val", left_out, [tmp_path / "train", tmp_path / "val"])
    assert [folder.name for folder in found] == ["bird", "dog"]
    assert "1 link to folders" in left_out.lines()[0]
