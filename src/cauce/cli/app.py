"""The commands, and what they have in common: ``--debug``, errors in one line, exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Final

import psycopg
from cyclopts import App, CycloptsError, Group, Parameter

from cauce.cli import codes
from cauce.cli.process import leave
from cauce.embedded import EmbeddedError
from cauce.errors import CauceError

COMMANDS: Final = {
    "Run": {
        "worker": ("cauce.cli.running:worker", "Process events until SIGTERM or Ctrl-C."),
        "serve": ("cauce.cli.running:serve", "Serve webhooks, procesar_lote and salud over HTTP."),
        "dev": ("cauce.cli.running:dev", "Run everything for development, with a PostgreSQL of its own."),
        "demo": ("cauce.cli.running:demo", "See events travel; ends by itself."),
    },
    "Look": {
        "status": ("cauce.cli.looking:status", "Count waiting, in-flight and dead deliveries; list workers."),
        "events": ("cauce.cli.looking:events", "List events, newest first."),
        "show": ("cauce.cli.looking:show", "Show one event, its deliveries and failed attempts."),
        "why": ("cauce.cli.families:why", "Show what an event came from and what came of it."),
        "docs": ("cauce.cli.docs:docs", "Read the documents: guides, settings, commands."),
    },
    "Do": {
        "migrate": ("cauce.cli.mending:migrate", "Bring the tables up to date and write a bus's catalog."),
        "publish": ("cauce.cli.mending:publish", "Publish one event by hand."),
        "retry": ("cauce.cli.mending:retry", "Make an event's failed deliveries due now."),
        "dismiss": ("cauce.cli.mending:dismiss", "Give up an event's failed deliveries for good."),
    },
}
"""Group -> command -> where it is and what it does, so that `--help` imports none of them."""

app = App(
    name="cauce",
    help="A durable event bus on PostgreSQL. The database is that of DATABASE_URL.",
    help_format="plaintext",
    help_epilogue="Exit codes: 0 done, 1 could not be done, 2 wrong command line. Every command: cauce docs cli.",
    default_parameter=Parameter(negative=()),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for number, (title, commands) in enumerate(COMMANDS.items()):
    group = Group(title, sort_key=number)
    for name, (place, summary) in commands.items():
        app.command(place, name=name, group=group, help=summary)
app.command(
    "cauce.cli.webhook:app",
    name="webhook",
    group=Group("Webhooks", sort_key=len(COMMANDS)),
    help="Try an inbox without the provider, explain deliveries, and verify refused ones again.",
)
app.command(
    "cauce.cli.catalog:app",
    name="catalog",
    group=Group("Events", sort_key=len(COMMANDS) + 1),
    help="Describe a bus's events, compare them with an older version, and check what is stored.",
)
app.meta.group_parameters = Group("Always")


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(env_var="CAUCE_DEBUG")] = False,
) -> int:
    """Run one command.

    Args:
        tokens: the command and its arguments.
        debug: Show the traceback of an error, and log everything.
    """
    if debug:
        os.environ["CAUCE_DEBUG"] = "1"
    code = app(tokens, exit_on_error=False, print_error=False)
    return code if isinstance(code, int) else codes.DONE


def run(tokens: Sequence[str]) -> int:
    """Run a command line and return its exit code; an error is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # escape characters that the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app.meta(tokens, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()) + " See: cauce --help", codes.USAGE)
    except KeyboardInterrupt:
        return codes.INTERRUPTED
    except BrokenPipeError:  # the reader closed the pipe; without this, Python complains at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return codes.NOT_DONE
    except Exception as error:  # noqa: BLE001 - the last place to show it in one line
        if os.environ.get("CAUCE_DEBUG"):
            traceback.print_exc()
        return _fail(explain(error), codes.NOT_DONE)
    return code if isinstance(code, int) else codes.DONE


def explain(error: Exception) -> str:
    """Return an error as one line; a ``CatalogError`` has one more for each fault, and notes one more each."""
    if isinstance(error, CauceError | EmbeddedError):
        return "\n".join([str(error).strip(), *getattr(error, "__notes__", ())])
    text = " ".join(str(error).split())
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return f"cannot reach the database of DATABASE_URL: {text}"
    if isinstance(error, psycopg.Error):
        return f"the database refused: {text}"
    return f"unexpected {type(error).__name__}: {text}; --debug shows where"


def main() -> None:
    """Run the command line of this process."""
    leave(run(sys.argv[1:]))


def _fail(message: str, code: int) -> int:
    print(f"cauce: {message}", file=sys.stderr)
    return code
