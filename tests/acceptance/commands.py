"""Commands in processes of their own, forked from one that has imported the command line.

To start Python and import is nine tenths of what a short command takes, and the tests run hundreds of them. Tests that
send signals, and those of the first output, start the installed program itself.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

from cauce.cli import docs, looking, main, mending, running, webhook

TOP = Path(__file__).parents[2]
SECONDS = 60.0
"""Seconds that a command may take."""
MESSAGE_BYTES = 2**17
"""The longest message to the process that forks: arguments and environment."""

IMPORTED = (docs, looking, mending, running, webhook)
"""What the command line imports when it is needed, and a forked process has."""


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], *, cwd: Path = TOP, stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run ``cauce`` to its end, as ``subprocess.run`` does."""
    forker, channel = _forker()
    with TemporaryFile() as given, TemporaryFile() as printed, TemporaryFile() as complained:
        given.write(stdin)
        given.seek(0)
        message = json.dumps({"arguments": list(arguments), "environment": dict(environment), "cwd": str(cwd)})
        socket.send_fds(channel, [message.encode()], [file.fileno() for file in (given, printed, complained)])
        try:
            code = int(channel.recv(MESSAGE_BYTES))
        except TimeoutError:
            os.killpg(forker.pid, signal.SIGKILL)
            _forker.cache_clear()
            raise
        outputs = []
        for file in (printed, complained):
            file.seek(0)
            outputs.append(file.read().decode())
    return subprocess.CompletedProcess(list(arguments), code, *outputs)


@cache
def _forker() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the process that forks; it ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(SECONDS)
    command = [sys.executable, __file__, str(its.fileno())]
    with its:
        process = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return process, ours


def _fork_for(channel: socket.socket) -> None:
    """Fork for each message, and answer with the exit code."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 3)
        if not message:
            return
        if (child := os.fork()) == 0:
            channel.close()
            _become(files, **json.loads(message))
        for file in files:
            os.close(file)
        channel.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _become(files: Sequence[int], arguments: Sequence[str], environment: Mapping[str, str], cwd: str) -> None:
    """Be the command."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["cauce", *arguments]
    main()


if __name__ == "__main__":
    gc.freeze()  # what is imported: no command should look through it, or copy its pages
    with socket.socket(fileno=int(sys.argv[1])) as _channel:
        _fork_for(_channel)
