"""``cauce webhook rejected``, ``reverify``, ``dismiss``: the commands for the quarantine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter, validators

from cauce.cli import codes, tables
from cauce.cli.asking import NO_TERMINAL, Yes, agreed
from cauce.cli.loading import load_settings
from cauce.cli.means import Means, Options
from cauce.cli.secrets import other_secrets
from cauce.cli.tables import ago, as_json, clean, complain
from cauce.database import quarantine
from cauce.database.connecting import connect, connect_async
from cauce.database.quarantine import FullRejected, Reverified
from cauce.errors import NotFound
from cauce.webhooks import Headers, Reason, Verdict, WebhookRequest
from cauce.webhooks.explaining.explain import explain
from cauce.webhooks.explaining.moments import iso
from cauce.webhooks.raw import write_request

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

    from cauce.config import Settings


WHICH: Final = "say which: their numbers, or --origen for all of an origin"


def rejected(
    number: int | None = None,
    /,
    *,
    origen: str | None = None,
    razon: Reason | None = None,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000))] = 20,
    before: int | None = None,
    options: Options | None = None,
    print_: Annotated[bool, Parameter(name="--print")] = False,
    json: bool = False,
) -> int:
    """List the deliveries that were refused, newest first; or explain one line by line, with the current secrets.

    Args:
        number: The delivery to explain.
        origen: Only those of this origin.
        razon: Only those refused for this reason.
        limit: The largest number of deliveries to list.
        before: Only those with a lower id.
        options: How to verify it.
        print_: Write it as a raw HTTP request to standard output.
        json: Print JSON.
    """
    if number is None and print_:
        return complain("--print goes with the number of a refused delivery")
    try:
        means = Means.read(options)
    except (ValueError, OSError) as error:
        return complain(str(error))
    with connect(load_settings()) as conn:
        if number is None:
            page = quarantine.page(conn, origen=origen, razon=razon, before=before, limit=limit)
            tables.show(page, tables.of_rejected, json=json)
            return codes.DONE
        row = quarantine.find(conn, number)
    if print_:
        sys.stdout.buffer.write(write_request(_sendable(row.request())))
        return codes.DONE
    try:
        return _explain(row, means, json=json)
    except ValueError as error:
        return complain(str(error))


def reverify(
    *numbers: int,
    origen: str | None = None,
    razon: Reason | None = None,
    options: Options | None = None,
    json: bool = False,
) -> int:
    """Verify refused deliveries again after a fix, as of when they came, and store those that are valid.

    Exit code 1 if one of them stays.

    Args:
        numbers: The deliveries' numbers.
        origen: All of this origin.
        razon: Of these, only those refused for this reason.
        options: How to verify them.
        json: Print JSON.
    """
    if not numbers and origen is None:
        return complain(WHICH)
    settings = load_settings()
    try:
        means = Means.read(options)
        with connect(settings) as conn:
            found = quarantine.select(conn, numbers, origen=origen, razon=razon)
            done = asyncio.run(_reverify(conn, settings, found, means, aloud=not json))
    except (ValueError, OSError) as error:
        return complain(str(error))
    left = [one for one in done if one.is_done]
    if json:
        print(as_json({"resultados": [asdict(one) for one in done]}))
    elif len(done) > 1:
        print(f"{len(left)} of {len(done)} have left the quarantine")
    if not done:
        print(f"cauce: the quarantine has nothing of {origen} to verify", file=sys.stderr)
    return codes.DONE if done and len(left) == len(done) else codes.NOT_DONE


def dismiss(
    *numbers: int,
    origen: str | None = None,
    razon: Reason | None = None,
    yes: Yes = False,
    json: bool = False,
) -> int:
    """Delete refused deliveries for good.

    Args:
        numbers: The deliveries' numbers.
        origen: All of this origin.
        razon: Of these, only those refused for this reason.
        yes: Do not ask.
        json: Print JSON.
    """
    if not numbers and origen is None:
        return complain(WHICH)
    if not yes and not sys.stdin.isatty():
        return complain(NO_TERMINAL)
    with connect(load_settings()) as conn:
        found = quarantine.select(conn, numbers, origen=origen, razon=razon)
        if found and not yes and not agreed(f"Delete {_deliveries(len(found))}"):
            return codes.NOT_DONE
        count = quarantine.dismiss(conn, found)
    if json:
        print(as_json({"descartados": count}))
    elif count:
        print(f"dismissed {_deliveries(count)}")
    if not found:
        print(f"cauce: the quarantine has nothing of {origen} to dismiss", file=sys.stderr)
    return codes.DONE if count else codes.NOT_DONE


def _explain(row: FullRejected, means: Means, *, json: bool) -> int:
    """Explain one delivery: as it was judged when it came, and now."""
    provider = means.provider_of(row.origen)
    lines = [("request", f"POST {row.url}, {row.tamano} bytes")]
    verdict: Verdict | None = None
    never = quarantine.obstacle(provider, row) if provider is not None else _unknown(row.origen)
    if provider is not None and never is None:
        request = row.request(means.called_at(row.url))
        now = quarantine.moment(provider, row, request, means.at)
        explained = explain(provider, request, means.secrets_of(provider), now, other_secrets())
        verdict, lines = explained.verdict, list(explained.lines)
    else:
        lines += [("header", f"{name}: {value}") for name, value in row.cabeceras]
        lines.append(("never", f"it cannot be verified again here: {never}"))
    if json:
        print(as_json({"rechazado": asdict(row), "explicacion": lines, "imposible": never}))
        return codes.DONE
    came = iso(row.recibido_en.timestamp())
    lines[:0] = [
        ("refused", f"number {row.id} of {row.origen}, {came} ({ago(row.recibido_en)})"),
        ("then", f"{row.razon}: {row.detalle}"),
        *([("then", row.causa)] if row.causa else []),
        *([("now", "with the current secrets:")] if verdict is not None else []),
    ]
    for label, line in lines:
        print(f"{label:<9} {clean(line, lines=False).plain}")
    return codes.DONE


async def _reverify(
    conn: Connection[Any], settings: Settings, numbers: Sequence[int], means: Means, *, aloud: bool
) -> list[Reverified]:
    """Verify deliveries one after another, each in a transaction of its own."""
    done: list[Reverified] = []
    async with await connect_async(settings) as writer:
        for number in numbers:
            try:
                row = quarantine.find(conn, number)
                done.append(await _reverify_one(writer, row, means, keep_raw=settings.keep_raw_bodies))
            except NotFound:
                continue  # dismissed or verified meanwhile
            if aloud:
                print(f"{number}  {done[-1].origen}  {clean(_said(done[-1]), lines=False).plain}", flush=True)
    return done


async def _reverify_one(conn: AsyncConnection[Any], row: FullRejected, means: Means, *, keep_raw: bool) -> Reverified:
    provider = means.provider_of(row.origen)
    if provider is None:
        return Reverified(row.id, row.origen, "imposible", [], _unknown(row.origen))
    secrets = means.secrets_of(provider)
    url = means.called_at(row.url)
    return await quarantine.reverify(conn, row.id, provider, secrets, at=means.at, url=url, keep_raw=keep_raw)


def _said(one: Reverified) -> str:
    """Describe what became of a delivery."""
    listed = ", ".join(str(evento) for evento in one.eventos)
    events = f"event {listed}" if len(one.eventos) == 1 else f"events {listed}"
    text = {
        "guardado": f"stored as {events}" if one.eventos else "valid, and without any event",
        "duplicado": f"already stored as {events}",
        "pregunta": "valid, and deleted",
        "rechazado": "still refused",
        "imposible": "cannot be verified again",
    }[one.resultado]
    return f"{text}: {one.detalle}" if one.detalle else text


def _unknown(origen: str) -> str:
    return f"no built-in provider is called {origen}: name one with --provider, or your own as module:name"


def _sendable(request: WebhookRequest) -> WebhookRequest:
    """Leave out Content-Length, which is written again."""
    pairs = [pair for pair in request.headers.raw() if pair[0] != b"content-length"]
    return replace(request, headers=Headers(pairs))


def _deliveries(count: int) -> str:
    return f"{count} refused {'delivery' if count == 1 else 'deliveries'}"
