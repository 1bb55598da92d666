"""Plans, as the server tells them of what it runs, and what is wrong with them where tables are large."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from tests.integration.engine.kit import Conn

LARGE = ("eventos", "entregas", "marcas", "fallos", "causas", "rechazados")
"""Tables that grow with what has happened, not with what is going on."""
BY_ID = {"eventos_pkey", "eventos_id_externo_unico"}
"""Indexes by which single events are looked up, those of a batch; what is not one of these ranges over the log."""


class Ran(NamedTuple):
    """A statement that ran, by itself or inside a function, and the nodes of its plan, its root first."""

    text: str
    nodes: list[dict[str, Any]]

    @property
    def reads_the_log(self) -> bool:
        """Whether it touches `eventos`."""
        return any(node.get("Relation Name") == "eventos" for node in self.nodes)

    @property
    def faults(self) -> list[str]:
        """Nodes that read more of the log than they return, or all of it before they return the first row."""
        return [
            node["Node Type"]
            for node in self.nodes
            if (node["Node Type"] == "Seq Scan" and node["Relation Name"] == "eventos")
            or (node["Node Type"] == "Bitmap Index Scan" and node["Index Name"] == "eventos_log")
            or ("Sort" in node["Node Type"] and any(_ranges_over_the_log(below) for below in node["Plans"]))
        ]

    @property
    def scans(self) -> list[str]:
        """The large tables in which it looks at one row after the other; needs `Listener(measure=True)`."""
        return [
            node["Relation Name"]
            for node in self.nodes
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE and _read(node) > 0
        ]

    @property
    def rows(self) -> int:
        """Rows of large tables that it read, including those that it discarded; needs the same."""
        return round(sum(_read(node) for node in self.nodes if node.get("Relation Name") in LARGE))

    @property
    def pages(self) -> int:
        """Pages that it touched, nested statements included; needs the same."""
        root = self.nodes[0]
        return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])


class Listener:
    """Hears the plans of everything that a connection runs, nested statements too.

    Args:
        conn: the connection.
        measure: hear also what was read.
    """

    def __init__(self, conn: Conn, *, measure: bool = False) -> None:
        self.ran: list[Ran] = []
        conn.execute("load 'auto_explain'")
        for setting in (
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_nested_statements = on",
            "auto_explain.log_format = json",
            "auto_explain.log_timing = off",
            f"auto_explain.log_analyze = {measure}",
            f"auto_explain.log_buffers = {measure}",
            "client_min_messages = log",
        ):
            conn.execute(f"set {setting}".encode())
        conn.add_notice_handler(self._hear)

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        message = notice.message_primary or ""
        if "plan:" in message:
            document = json.loads(message.partition("plan:")[2])
            self.ran.append(Ran(document["Query Text"], [*_walk(document["Plan"])]))


def know(dsn: str, *, analyzed: bool) -> None:
    """Have the large tables analyzed, or as if nobody had ever analyzed them."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for table in LARGE:
            name = f"cauce.{table}"
            if analyzed:
                conn.execute(sql.SQL("vacuum analyze {}").format(sql.Identifier("cauce", table)))
            else:
                conn.execute("delete from pg_statistic where starelid = %s::regclass", (name,))
                conn.execute(
                    "update pg_class set reltuples = -1, relpages = 0, relallvisible = 0 where oid = %s::regclass"
                    " or oid in (select indexrelid from pg_index where indrelid = %s::regclass)",
                    (name, name),
                )


def _walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _walk(child)


def _ranges_over_the_log(node: dict[str, Any]) -> bool:
    if node["Node Type"] in ("Limit", "Aggregate"):
        return False
    scan = (
        node.get("Relation Name") == "eventos" and node.get("Index Name") not in BY_ID and "Scan" in node["Node Type"]
    )
    return (scan and node["Node Type"] != "Bitmap Heap Scan") or any(map(_ranges_over_the_log, node.get("Plans", ())))


def _read(node: dict[str, Any]) -> float:
    """Count the rows that a scan read, in all its loops; PostgreSQL gives averages of a loop."""
    thrown = sum(float(count) for name, count in node.items() if name.startswith("Rows Removed by "))
    return (float(node["Actual Rows"]) + thrown) * float(node["Actual Loops"])
