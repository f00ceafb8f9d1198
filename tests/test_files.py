"""Files that are whole or not there."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alexnet.files import LEFT_BEHIND, LOCK, alone, is_temporary, lock, replacing, unlock


def test_two_writers_to_one_path(tmp_path: Path) -> None:
    """Both are halfway at the same time; the one that ends last has the whole
    file, and nothing is left.
    """
    path, halfway = tmp_path / "x.json", threading.Barrier(2, timeout=10)

    def write(text: str) -> None:
        with replacing(path) as temporary, open(temporary, "w") as file:
            file.write(text[:500])
            file.flush()
            halfway.wait()
            file.write(text[500:])

    writers = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("earlier")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "earlier"}


def test_what_killed_writers_leave_is_removed_after_a_day(tmp_path: Path) -> None:
    """Of this path, and not before: it may be a living writer's."""
    names = {".x.0123456789ab.tmp": 2.0, ".x.ba9876543210.tmp": 0.5, ".y.0123456789ab.tmp": 2.0, ".x.tmp": 2.0, "x.tmp": 2.0}
    for name, days in names.items():
        (tmp_path / name).write_text("")
        then = time.time() - days * LEFT_BEHIND
        os.utime(tmp_path / name, (then, then))
    with replacing(tmp_path / "x") as temporary:
        temporary.write_text("")
        assert is_temporary(temporary.name)
    assert {path.name for path in tmp_path.iterdir()} == {*names, "x"} - {".x.0123456789ab.tmp"}


@pytest.mark.parametrize("name", ["é" * 127, "x" * 255, "a[b]*?.json"])
def test_any_name_that_the_file_system_takes(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_is_one_process_s_until_it_ends(tmp_path: Path) -> None:
    """However it ends: killed, it leaves the lock's file and no lock."""
    program = "import sys, time; from pathlib import Path; from alexnet.files import lock\n"
    program += "held = lock(Path(sys.argv[1])); print(bool(held), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "True\n"
        assert lock(tmp_path) is None
        other.kill()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    held = lock(tmp_path)
    assert held and lock(tmp_path) is None
    unlock(held)
    assert not list(tmp_path.iterdir())


def test_whoever_waits_for_a_folder_has_it_next(tmp_path: Path) -> None:
    order, held = [], lock(tmp_path)
    assert held

    def other() -> None:
        with alone(tmp_path, lambda: order.append("waits")):
            order.append("works")

    thread = threading.Thread(target=other)
    thread.start()
    while not order:
        time.sleep(0.001)
    order.append("is done")
    held.release()
    thread.join(10)
    assert order == ["waits", "is done", "works"]
