"""The watcher: a small process between the PostgreSQL server and its users.

It is the server's parent and outlives the process that started it. Every user of the server holds a shared lock on one
file, which the kernel releases however that user ends, SIGKILL included. The watcher waits for the exclusive lock. When
it gets the lock, nobody uses the server any more, and the watcher stops it.

`cauce.embedded.server` runs this file as a script (`python -I -S`), so it imports as little as possible. Its output and
the server's go to the log. It forks once, so that it is not a child of the process that started it.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading


def watch(folder: str, user: tuple[int, int], sockets: str, *, temporary: bool, command: list[str]) -> int:
    """Run the server until it ends or nobody uses it, remove its files, and return its exit code.

    Args:
        folder: the server's folder, with the lock of its users.
        user: the uid and gid to run the server as; only used by root.
        sockets: the directory of the server's socket, removed at the end.
        temporary: whether to remove the folder when the last user is gone.
        command: the server's program and arguments.
    """
    uid, gid = user if os.geteuid() == 0 else (None, None)
    groups: list[int] | None = None if uid is None else []
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, user=uid, group=gid, extra_groups=groups)
    abandoned = threading.Event()

    def wait_for_the_last_user() -> None:
        fcntl.flock(os.open(f"{folder}/users.lock", os.O_RDWR), fcntl.LOCK_EX)
        abandoned.set()
        # a temporary folder has nothing to save
        server.send_signal(signal.SIGQUIT if temporary else signal.SIGINT)

    threading.Thread(target=wait_for_the_last_user, daemon=True).start()
    code = server.wait()
    shutil.rmtree(sockets, ignore_errors=True)
    if temporary and abandoned.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    _folder, _uid, _gid, _sockets, _temporary, *_command = sys.argv[1:]
    sys.exit(watch(_folder, (int(_uid), int(_gid)), _sockets, temporary=_temporary == "temporary", command=_command))
