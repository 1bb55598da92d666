"""The benchmarks still work: every phase runs, in tiny sizes, and says what the bars need."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

TOP = Path(__file__).parents[2]
PHASES = {
    *("A", "B", "C", "D1", "D2", "E", "F_p50", "F_p99", "G_231", "G_4096", "P16", "H_reader", "H_writer"),
    *(
        "H_retry_reader",
        "H_retry_writer",
        "failing",
        "failing_dead",
        "W_async_1",
        "W_async_10",
        "W_sync_50",
        "idle_tx",
        "idle_wal",
        "idle_conns",
    ),
    *("open_p50", "open_max", "straggler_p50", "straggler_max", "kept", "waiting"),
    *("inbox", "inbox_p99", "inbox_bare", "inbox_bare_p99", "inbox_mem"),
    *(f"L{number}" for number in range(1, 10)),
}


@contextlib.contextmanager
def group(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process group of its own; kill what is left of the group in the end."""
    with subprocess.Popen(
        command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


HANG_SECONDS: Final = 600
"""Seconds after which a run hangs: it needs 25 s of CPU, which took longer than 120 s on a machine that others used."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Mapping[str, Any]]:
    """What a run of all phases prints, and the file it writes."""
    file = tmp_path_factory.mktemp("bench") / "build" / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(file)]
    with group(command) as process:
        printed, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, printed
    return printed, json.loads(file.read_text())


def test_every_phase_is_measured_beside_its_floor(run: tuple[str, Mapping[str, Any]]) -> None:
    """The file maps each phase to ours, floor, ratio, unit and repetitions; rates and sizes are positive.

    A delay is finite, no more: on a busy machine a handler may begin before the publisher hears that it has committed.
    So is the growth of a process: a hundred bodies may fit into what it had. An idle worker
    must write nothing, and its sessions may not have reported yet what they did. A failed retry leaves one dead row.
    """
    _, phases = run
    assert set(phases) == PHASES
    for name, phase in phases.items():
        for measured in ("ours", "floor", "ratio"):
            assert math.isfinite(phase[measured])
            assert phase[measured] > 0 or name in ("F_p50", "F_p99", "inbox_mem", "idle_tx", "idle_wal")
        assert phase["unit"]
        assert phase["repetitions"] == len(phase["samples"]["ours"]) == len(phase["samples"]["floor"]) == 1
    assert phases["failing_dead"]["ours"] == 1.0


def test_each_line_says_whether_the_bar_is_met(run: tuple[str, Mapping[str, Any]]) -> None:
    """Each phase has one line, with "met" or "short by", as the file has it."""
    printed, phases = run
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    for name, phase in phases.items():
        assert phase["verdict"] in lines[name]
        assert phase["verdict"] == "met" or phase["verdict"].startswith("short by ")


def test_the_report_names_what_the_numbers_depend_on(run: tuple[str, Mapping[str, Any]]) -> None:
    """Machine, versions, the server's settings and the features that are on stand above the table."""
    above = run[0].split("phase ")[0]
    for word in ("machine", "versions", "wal_level", "fsync", "synchronous_commit", "shared_buffers", "retries"):
        assert word in above
    assert "heartbeat" in above
    assert "validation" in above


def test_a_run_that_is_given_up_leaves_no_process_behind() -> None:
    """Nor one that a process of it started."""
    with group(["sh", "-c", "sleep 600 & echo $!; wait"]) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
    with contextlib.suppress(psutil.NoSuchProcess):
        child.wait(30)
    assert not child.is_running()


def test_a_phase_that_does_not_exist_is_refused() -> None:
    """The command line names the phases there are."""
    command = [sys.executable, "-m", "benchmarks", "--phases", "drian"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "no phase drian; there are publish, drain," in done.stderr
