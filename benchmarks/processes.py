"""Workers in processes of their own: started, listened to, stopped."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING, Any, Final

from benchmarks.results import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.child import Options

TOP: Final = Path(__file__).parents[1]
LOG: Final = TOP / "build" / "bench.log"
"""What the processes write to their standard error."""
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0


class Crew:
    """Some processes of one kind, on one database."""

    def __init__(self, kind: str, dsn: str, options: Options, size: int, log: IO[bytes]) -> None:
        self.kind = kind
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        command = [sys.executable, "-m", "benchmarks.child", kind, dsn, json.dumps(asdict(options))]
        self._processes: list[subprocess.Popen[str]] = []
        try:
            for _ in range(size):
                process = subprocess.Popen(
                    command, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
                self._processes.append(process)
                threading.Thread(target=self._read, args=(process,), daemon=True).start()
            for _ in range(size):
                self.expect("ready", START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def go(self) -> None:
        """Start them."""
        for process in self._processes:
            self._write(process)

    def expect(self, what: str, seconds: float) -> dict[str, Any]:
        """Return the next line of that kind; skip other lines.

        Raises:
            BenchError: it did not come in time, or a process ended.
        """
        deadline = monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - monotonic()))
            except queue.Empty:
                raise BenchError(f"{self.kind}: no {what!r} within {seconds:g} s; see {LOG}") from None
            if line["what"] == what:
                return line
            if line["what"] == "gone":
                raise BenchError(f"{self.kind}: a process ended before it said {what!r}; see {LOG}")

    def check(self) -> None:
        """Check that all of them still run.

        Raises:
            BenchError: one has ended.
        """
        if any(process.poll() is not None for process in self._processes):
            raise BenchError(f"{self.kind}: a process ended in the middle of its work; see {LOG}")

    def stop(self) -> None:
        """End them: ask first, then kill."""
        for process in self._processes:
            self._write(process)
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None:
            for line in process.stdout:
                self._lines.put(json.loads(line))
            process.stdout.close()
        self._lines.put({"what": "gone"})

    @staticmethod
    def _write(process: subprocess.Popen[str]) -> None:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write("\n")
                process.stdin.flush()


@contextlib.contextmanager
def crew(kind: str, dsn: str, options: Options, size: int = 1) -> Iterator[Crew]:
    """Start workers that have loaded everything and wait for ``go``; stop them at the end."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("ab") as log:
        workers = Crew(kind, dsn, options, size, log)
        try:
            yield workers
        finally:
            workers.stop()
