"""The PostgreSQL that the tests run on is the one that was asked for."""

from __future__ import annotations

import os
import subprocess

import psycopg

from cauce.embedded import EmbeddedPostgres
from tests.conftest import PROGRAMS_VARIABLE, programs


def test_the_server_is_of_the_version_asked_for(server: EmbeddedPostgres) -> None:
    """It is the one whose programs the variable names, or else the wheel's, which is 18."""
    said = subprocess.run([programs() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("postgres (PostgreSQL) 18.") or PROGRAMS_VARIABLE in os.environ
    with psycopg.connect(server.dsn) as conn:
        assert said.split()[2] == str(conn.info.parameter_status("server_version")).split()[0]
