"""A process that is killed in the middle of a transaction: ``python -m tests.integration.drivers.killed NAME DSN``."""

from __future__ import annotations

import os
import signal
import sys

from cauce import Catalog, EventType, NuevoEvento


class Notas(Catalog, origen="prueba"):
    """A catalog."""

    una = EventType("nota.una", dict[str, int])


def main(name: str, dsn: str) -> None:
    """Write, publish, say so, and wait to be killed."""
    os.environ["PGAPPNAME"] = "killed"
    from tests.integration.drivers.callers import CALLERS  # noqa: PLC0415 - Django and the drivers read the name

    caller = CALLERS[name](dsn)
    with caller.transaction():
        caller.execute("insert into pedidos values ('a')")
        caller.publish(Notas.una, {"n": 1})
        caller.publish_all([NuevoEvento(Notas.una, {"n": 2})] * 3)
        sys.stdout.write("published\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
