"""Refused deliveries: kept with the reason, within bounds, and verified again once the cause is corrected."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

import httpx
import psycopg
import pytest

from cauce import NotFound
from cauce.database import quarantine
from cauce.database.quarantine import Reverified
from cauce.engine.upkeep import Upkeep
from cauce.web import quarantine as gate
from cauce.web.connections import HttpConnections
from cauce.webhooks import PROVIDERS, Headers, Provider, Reason, Rejected, Secret, WebhookRequest
from cauce.webhooks.explaining.diagnose import Inquiry
from cauce.webhooks.limits import MAX_HEADER_BYTES
from cauce.webhooks.provider import Draft
from cauce.webhooks.providers.square import Square
from tests.integration.web.conftest import Delivery, Inbox, Sign

SECRET: Final = "whsec_one"
STRIPE: Final = PROVIDERS["stripe"]
SQUARE: Final = PROVIDERS["square"]
OUTSIDE: Final = "https://shop.example/api/webhooks/square"


def rejected(inbox_: Inbox) -> list[dict[str, Any]]:
    """What is in the quarantine, as it came."""
    return inbox_.query("select * from cauce.rechazados order by id")


def post(inbox_: Inbox, request: WebhookRequest, origen: str, **more: str) -> httpx.Response:
    """Deliver what a provider signed, to the address that this process sees."""
    headers = {**dict(request.headers), **more}
    query = "".join(request.url.partition("?")[1:])
    return inbox_.request("POST", f"/api/webhooks/{origen}{query}", content=request.body, headers=headers)


def sign(provider: Provider, event: object, url: str = "http://test", secret: str = SECRET) -> WebhookRequest:
    """Sign an event as its provider does."""
    return provider.sign(Draft(json.dumps(event).encode(), url=url), Secret(secret), time.time())


def again(
    inbox_: Inbox,
    number: int,
    provider: Provider = STRIPE,
    secrets: Sequence[str] = (SECRET,),
    **more: Any,
) -> Reverified:
    """Verify one again."""

    async def work() -> Reverified:
        async with await psycopg.AsyncConnection.connect(inbox_.settings.database_url, autocommit=True) as conn:
            return await quarantine.reverify(conn, number, provider, [Secret(one) for one in secrets], **more)

    return asyncio.run(work())


def keep(inbox_: Inbox, count: int, reason: Reason = Reason.BAD_SIGNATURE, provider: Provider = STRIPE) -> None:
    """Put deliveries into the quarantine, from eight writers at once."""
    request = sign(provider, {"id": "evt", "type": "t"})

    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(inbox_.settings.database_url, autocommit=True) as conn:
            for _ in range(count // 8):
                await quarantine.keep(conn, provider, request, Rejected(reason, "as asked"))

    async def work() -> None:
        await asyncio.gather(*[write() for _ in range(8)])

    asyncio.run(work())


# ----------------------------------------------------------------------------------------------------------- the reason


def test_another_secret(inbox: Inbox, signed: Sign) -> None:
    """All that is needed to verify it again is kept; the log of events knows nothing of it."""
    delivery = signed(secrets=["whsec_other"])
    answer = inbox.deliver(delivery._replace(headers={**delivery.headers, "authorization": "Bearer t"}))
    assert (answer.status_code, answer.json()["error"]) == (400, "firma_invalida")
    (row,) = rejected(inbox)
    assert (row["origen"], row["razon"], row["cuerpo"]) == ("stripe", "bad_signature", delivery.body)
    assert row["causa"].startswith("the secret is wrong")
    assert "its length was not changed" in row["causa"]
    assert (row["url"], row["tamano"]) == ("http://test/api/webhooks/stripe", len(delivery.body))
    assert {name for name, _ in row["cabeceras"]} == {
        "content-length",
        "content-type",
        "stripe-signature",
        "user-agent",
    }
    assert inbox.events() == []


def test_a_body_that_was_written_anew(inbox: Inbox, signed: Sign) -> None:
    """The signature fits the same content in another writing, so the secret is right."""
    delivery = signed()
    compact = json.dumps(json.loads(delivery.body), separators=(",", ":")).encode()
    assert inbox.deliver(delivery._replace(body=compact)).status_code == 400
    (row,) = rejected(inbox)
    assert row["razon"] == "bad_signature"
    assert row["causa"].startswith("the secret is right, but the body was rewritten")
    assert "a space after commas and colons" in row["causa"]


@pytest.mark.parametrize(("age", "reason"), [(7200, "stale"), (-7200, "future")])
def test_a_clock_that_is_wrong(inbox: Inbox, signed: Sign, age: float, reason: str) -> None:
    """Two hours almost exactly are a time zone."""
    assert inbox.deliver(signed(age=age)).status_code == 400
    (row,) = rejected(inbox)
    assert row["razon"] == reason
    assert "the clocks differ by almost exactly 2 h" in row["causa"]
    assert re.search(r"7(19|20)\d s (ago|ahead)", row["detalle"])


def test_an_address_that_was_rewritten(inbox: Inbox) -> None:
    """The other scheme is a reason of its own; what X-Forwarded-* says is found out."""
    inbox.configure(secrets={SQUARE.secret_setting: SECRET}.get)
    scheme = sign(SQUARE, {"event_id": "1", "type": "t"}, "https://test/api/webhooks/square")
    host = sign(SQUARE, {"event_id": "2", "type": "t"}, OUTSIDE)
    assert post(inbox, scheme, "square").status_code == 400
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-host": "shop.example"}
    assert post(inbox, host, "square", **forwarded).status_code == 400
    first, second = rejected(inbox)
    assert (first["razon"], second["razon"]) == ("url_mismatch", "bad_signature")
    assert "the provider signed https://test/" in first["detalle"]
    assert OUTSIDE in second["causa"]


def test_no_secret(inbox: Inbox, signed: Sign) -> None:
    """It is kept though the sender is told to try again, for not all of them do."""
    inbox.configure(stripe_webhook_secret="")
    assert inbox.deliver(signed()).status_code == 503
    (row,) = rejected(inbox)
    assert (row["razon"], row["causa"]) == ("empty_secret", None)


def test_a_delivery_of_another_provider(inbox: Inbox) -> None:
    """It is found out when it comes, by a header that is not kept."""
    request = sign(PROVIDERS["paddle"], {"event_id": "1", "event_type": "t"})
    assert post(inbox, request, "stripe").status_code == 400
    (row,) = rejected(inbox)
    assert row["razon"] == "missing_header"
    assert "of paddle" in row["causa"]


def test_what_is_good_or_is_nobodys_is_not_kept(inbox: Inbox, signed: Sign) -> None:
    """A stored delivery, an unknown origin, another method, a body that is too long."""
    inbox.configure(max_body_bytes=1000)
    assert inbox.deliver(signed()).status_code == 200
    assert inbox.deliver(signed(), "nobody").status_code == 404
    assert inbox.request("GET", "/api/webhooks/stripe").status_code == 405
    assert inbox.deliver(signed(body="x" * 1001)).status_code == 413
    assert rejected(inbox) == []


def test_none_are_kept_if_a_setting_says_so(inbox: Inbox, signed: Sign) -> None:
    """Zero days."""
    inbox.configure(quarantine_days=0)
    assert inbox.deliver(signed(secrets=["whsec_other"])).status_code == 400
    assert rejected(inbox) == []


@pytest.mark.parametrize("extra", [0, 1], ids=["at the bound", "past it"])
def test_a_large_body_is_left_out(inbox: Inbox, signed: Sign, extra: int) -> None:
    """Its size is kept, and that it cannot be verified again is said."""
    size = quarantine.BODY_BYTES + extra
    inbox.deliver(signed(body="x" * size, secrets=["whsec_other"]))
    (row,) = rejected(inbox)
    assert (row["tamano"], row["cuerpo"] is None, row["causa"]) == (size, bool(extra), None)
    done = again(inbox, row["id"], secrets=["whsec_other"])
    assert done.resultado == ("imposible" if extra else "guardado")
    assert not extra or f"its body of {size} bytes was not kept" in done.detalle


def test_a_long_url_is_cut_and_the_body_left_out(inbox: Inbox) -> None:
    """An address that is not all there cannot be verified."""
    inbox.configure(secrets={SQUARE.secret_setting: SECRET}.get)
    request = sign(SQUARE, {"event_id": "1", "type": "t"}, "http://test/?" + "x" * quarantine.URL_CHARACTERS)
    assert post(inbox, request, "square").status_code == 400
    (row,) = rejected(inbox)
    assert (len(row["url"]), row["cuerpo"]) == (quarantine.URL_CHARACTERS, None)


def test_a_large_body_is_not_diagnosed_at_once(inbox: Inbox, signed: Sign) -> None:
    """Trying its rewritings takes long; it is done when an operator looks at it."""
    for size in (gate.DIAGNOSED_BYTES, gate.DIAGNOSED_BYTES + 1):
        inbox.deliver(signed(body="x" * size, secrets=["whsec_other"]))
    assert [row["causa"] is None for row in rejected(inbox)] == [False, True]


def test_a_diagnosis_that_fails_costs_nothing_else(
    inbox: Inbox, signed: Sign, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The delivery is kept without it."""

    def fail(*_: object) -> None:
        raise RuntimeError("as asked")

    monkeypatch.setattr(Inquiry, "cause", fail)
    assert inbox.deliver(signed(secrets=["whsec_other"])).status_code == 400
    assert [row["causa"] for row in rejected(inbox)] == [None]
    assert "cannot diagnose a refused delivery of" in caplog.text


def test_a_stranger_cannot_hide_in_odd_bytes(inbox: Inbox) -> None:
    """NUL, letters beyond ASCII and half a surrogate pair are kept as far as a column holds them."""
    headers = {b"stripe-signature": b"t=1,v1=\xe9\xff", b"user-agent": b"\xc3\xa9"}
    for body in (b"\x00\xff", b'"\\ud800"'):
        assert inbox.request("POST", "/api/webhooks/stripe?a=%00", content=body, headers=headers).status_code == 400
    assert [row["cuerpo"] for row in rejected(inbox)] == [b"\x00\xff", b'"\\ud800"']


# ------------------------------------------------------------------------------------------------------ verifying again


def test_the_right_secret_stores_it_as_the_inbox_would_have(inbox: Inbox, signed: Sign) -> None:
    """With the verdict of when it came and a note of its way; and it is in the quarantine no longer."""
    delivery = signed(secrets=["whsec_other"])
    inbox.deliver(delivery)
    (row,) = rejected(inbox)
    refused = again(inbox, row["id"])
    assert (refused.resultado, refused.eventos, len(rejected(inbox))) == ("rechazado", [], 1)
    done = again(inbox, row["id"], secrets=[SECRET, "whsec_other"])
    (evento,) = inbox.events()
    assert (done.resultado, done.eventos, rejected(inbox)) == ("guardado", [evento["id"]], [])
    assert (evento["id_externo"], evento["estado"], evento["cuerpo"]) == ("evt_1", "pendiente", delivery.body)
    webhook = evento["cabeceras"]["webhook"]
    assert (webhook["esquema"], webhook["secreto"]) == ("hmac-sha256", 1)
    assert webhook["rechazado"] == {
        "id": row["id"],
        "recibido_en": row["recibido_en"].isoformat(),
        "razon": "bad_signature",
    }
    assert "stripe-signature" in evento["cabeceras"]["headers"]
    assert inbox.deliver(signed()).json() == {"id": evento["id"], "duplicado": True}


def test_it_is_judged_as_of_when_it_came(inbox: Inbox, signed: Sign) -> None:
    """An hour in the quarantine does not make it stale, and a replay does not become fresh by it."""
    fresh, replay = signed({"id": "evt_1", "type": "t"}, secrets=["whsec_other"], age=3000), signed(age=7200)
    for delivery in (fresh, replay):
        inbox.deliver(delivery)
    inbox.query("update cauce.rechazados set recibido_en = recibido_en - interval '50 min' where id = 1 returning 1")
    assert again(inbox, 1, secrets=["whsec_other"]).resultado == "guardado"
    done = again(inbox, 2)
    assert (done.resultado, done.detalle.partition(":")[0]) == ("rechazado", "stale")


def test_another_moment_can_be_given(inbox: Inbox, signed: Sign) -> None:
    """For a database whose clock was wrong: a moment, or each delivery's own word."""
    now = time.time()
    for number in range(2):
        inbox.deliver(signed({"id": f"evt_{number}", "type": "t"}, age=7200))
    assert again(inbox, 1, at=now).resultado == "rechazado"
    assert again(inbox, 1, at=now - 7200).resultado == "guardado"
    assert again(inbox, 2, at=quarantine.SIGNED).resultado == "guardado"


def test_the_right_address(inbox: Inbox) -> None:
    """Given by hand, or configured with the provider."""
    inbox.configure(secrets={SQUARE.secret_setting: SECRET}.get)
    for number in range(2):
        post(inbox, sign(SQUARE, {"event_id": f"{number}", "type": "t"}, f"{OUTSIDE}?shop=1"), "square")
    assert again(inbox, 1, SQUARE).resultado == "rechazado"
    assert again(inbox, 1, SQUARE, url=OUTSIDE).resultado == "guardado"
    assert again(inbox, 2, Square(public_url=f"{OUTSIDE}?shop=1")).resultado == "guardado"


def test_a_body_that_was_rewritten_stays(inbox: Inbox, signed: Sign) -> None:
    """Nobody signed these bytes; what the diagnosis found is a hint, and never a proof."""
    delivery = signed()
    inbox.deliver(delivery._replace(body=delivery.body + b" "))
    assert again(inbox, 1).resultado == "rechazado"
    assert inbox.events() == []


def test_a_token_is_not_stored_so_it_cannot_be_shown_again(inbox: Inbox) -> None:
    """And that is said."""
    gitlab = PROVIDERS["gitlab_token"]
    inbox.configure(secrets={gitlab.secret_setting: "new"}.get)
    request = sign(gitlab, {"object_kind": "push"}, "http://test", "token-1")
    assert post(inbox, request, "gitlab_token").status_code == 400
    (row,) = rejected(inbox)
    assert "token-1" not in str(row)
    done = again(inbox, 1, gitlab, ["token-1"])
    assert (done.resultado, "tokens are not stored" in done.detalle) == ("imposible", True)


def test_the_second_attempt_of_one_event_is_a_duplicate(inbox: Inbox, signed: Sign) -> None:
    """A provider's attempts are stored once; one that differs is told, as the inbox tells it."""
    for amount in (1, 1, 2):
        inbox.deliver(signed({"id": "evt_1", "type": "t", "amount": amount}, secrets=["whsec_other"]))
    done = [again(inbox, number, secrets=["whsec_other"]) for number in (1, 2, 3)]
    assert [one.resultado for one in done] == ["guardado", "duplicado", "duplicado"]
    assert len({tuple(one.eventos) for one in done}) == 1
    assert [one.detalle for one in done[:2]] == ["", ""]
    assert "differs in amount" in done[2].detalle
    assert (len(inbox.events()), rejected(inbox)) == (1, [])


def test_a_question_is_answered_by_nobody_now(inbox: Inbox) -> None:
    """It was verified and is no event; it leaves the quarantine."""
    slack = PROVIDERS["slack"]
    inbox.configure(secrets={slack.secret_setting: "other"}.get)
    post(inbox, sign(slack, {"type": "url_verification", "challenge": "c"}), "slack")
    assert again(inbox, 1, slack).resultado == "pregunta"
    assert (inbox.events(), rejected(inbox)) == ([], [])


def test_what_postgresql_refuses_is_parked_from_here_too(inbox: Inbox, signed: Sign) -> None:
    """In the same transaction, which goes on."""
    inbox.query("insert into cauce.catalogo values ('stripe', 't', 0, 'key') returning 1")
    delivery = signed({"id": "evt_1", "type": "t", "key": "k" * 501}, secrets=["whsec_other"])
    inbox.deliver(delivery)
    assert again(inbox, 1, secrets=["whsec_other"], keep_raw=False).resultado == "guardado"
    (evento,) = inbox.events()
    assert (evento["estado"], evento["cuerpo"], rejected(inbox)) == ("error", delivery.body, [])


def test_what_cannot_be_stored_stays(inbox: Inbox, signed: Sign, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stored and forgotten together, or neither."""

    async def fail(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("as asked")

    inbox.deliver(signed(secrets=["whsec_other"]))
    monkeypatch.setattr("cauce.database.inbox.differences", fail)
    inbox.deliver(signed())
    with pytest.raises(psycopg.OperationalError):
        again(inbox, 1, secrets=["whsec_other"])
    assert len(rejected(inbox)) == 1


def test_two_that_verify_one_at_once_store_it_once(inbox: Inbox, signed: Sign) -> None:
    """The second waits for the first, and finds it gone."""
    inbox.deliver(signed(secrets=["whsec_other"]))

    async def one() -> object:
        async with await psycopg.AsyncConnection.connect(inbox.settings.database_url, autocommit=True) as conn:
            return await quarantine.reverify(conn, 1, STRIPE, [Secret("whsec_other")])

    async def work() -> list[object]:
        return await asyncio.gather(*[one() for _ in range(5)], return_exceptions=True)

    done = asyncio.run(work())
    assert [one.resultado for one in done if isinstance(one, Reverified)] == ["guardado"]
    assert len([one for one in done if isinstance(one, NotFound)]) == 4
    assert len(inbox.events()) == 1


# ----------------------------------------------------------------------------------------------------------- the bounds


def test_no_more_than_so_many_are_kept(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one origin and reason, also with eight writers at once; only the oldest of these are deleted."""
    keep(inbox, 8, Reason.STALE)
    keep(inbox, 8, Reason.BAD_SIGNATURE, PROVIDERS["github"])
    monkeypatch.setattr(quarantine, "ROWS", 20)
    keep(inbox, 80)
    counts = inbox.query("select origen, razon, count(*) n, min(id) from cauce.rechazados group by 1, 2 order by 1, 2")
    assert [tuple(row.values()) for row in counts] == [
        ("github", "bad_signature", 8, 9),
        ("stripe", "bad_signature", 20, 77),
        ("stripe", "stale", 8, 1),
    ]


def test_no_more_than_so_many_bytes_are_kept(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted with headers and address, to the byte."""
    keep(inbox, 8)
    (row,) = inbox.query("select min(peso) weight, max(peso) heaviest from cauce.rechazados")
    assert row["weight"] == row["heaviest"] > len(b'{"id": "evt", "type": "t"}')
    for bound, left in ((3 * row["weight"], 3), (3 * row["weight"] - 1, 2)):
        monkeypatch.setattr(quarantine, "BYTES", bound)
        keep(inbox, 8)
        assert len(rejected(inbox)) == left


def test_the_largest_there_can_be_fits(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """One delivery with all that is kept of one is far below the bytes of its reason, so the newest always stays."""
    heaviest = quarantine.BODY_BYTES + quarantine.URL_CHARACTERS
    longest = max(len(provider.evidence) for provider in PROVIDERS.values()) + len(quarantine.HINTS)
    assert heaviest + longest * quarantine.COPIES * 2 * quarantine.HEADER_CHARACTERS < quarantine.BYTES / 8
    monkeypatch.setattr(quarantine, "ROWS", 1)
    keep(inbox, 8)
    assert [row["id"] for row in rejected(inbox)] == [8]


def flood(inbox_: Inbox, count: int, delivery: Delivery, origen: str = "stripe") -> set[int]:
    """Post one delivery many times; the statuses of the answers."""

    async def work(client: httpx.AsyncClient) -> set[int]:
        statuses: set[int] = set()
        for _ in range(count):
            answer = await client.post(f"/api/webhooks/{origen}", content=delivery.body, headers=delivery.headers)
            statuses.add(answer.status_code)
        return statuses

    statuses: set[int] = inbox_.run(work)
    return statuses


def test_a_flood_is_answered_and_not_written_down(inbox: Inbox, signed: Sign, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many of one reason no more is kept; another reason and another origin have their own allowance."""
    monkeypatch.setattr(gate, "BURST", 3)
    inbox.configure(secrets={STRIPE.secret_setting: SECRET, "GITHUB_WEBHOOK_SECRET": "g"}.get)
    for delivery, origen in (
        (signed(secrets=["whsec_other"]), "stripe"),
        (signed(age=7200), "stripe"),
        (signed()._replace(headers={}), "github"),
    ):
        assert flood(inbox, 10, delivery, origen) == {400}
    counts = inbox.query("select origen, razon, count(*) n from cauce.rechazados group by 1, 2 order by 1, 2")
    assert [tuple(row.values()) for row in counts] == [
        ("github", "missing_header", 3),
        ("stripe", "bad_signature", 3),
        ("stripe", "stale", 3),
    ]


def test_an_allowance_comes_back_slowly() -> None:
    """One more after each ``SECONDS_EACH``, and never more than ``BURST`` at once."""
    allowance = gate.Allowance(1000.0)
    assert [allowance.spend(1000.0, one_byte) for _ in range(gate.BURST + 1)] == [True] * gate.BURST + [False]
    assert not allowance.spend(1000.0 + 0.9 * gate.SECONDS_EACH, one_byte)
    assert allowance.spend(1000.0 + 1.1 * gate.SECONDS_EACH, one_byte)
    assert not allowance.spend(1000.0 + 1.1 * gate.SECONDS_EACH, one_byte)
    later = [allowance.spend(1e6, one_byte) for _ in range(gate.BURST + 1)]
    assert later == [True] * gate.BURST + [False]


def one_byte() -> int:
    """The least there can be."""
    return 1


def test_bytes_come_back_slowly() -> None:
    """So many a second, and never more than ``BURST_BYTES`` at once; what is too heavy now takes nothing away."""
    allowance = gate.Allowance(1000.0)
    assert not allowance.spend(1000.0, lambda: gate.BURST_BYTES + 1)
    assert allowance.spend(1000.0, lambda: gate.BURST_BYTES)
    assert not allowance.spend(1000.0, one_byte)
    assert not allowance.spend(1010.0, lambda: 10 * gate.BYTES_PER_SECOND + 1)
    assert allowance.spend(1010.0, lambda: 10 * gate.BYTES_PER_SECOND)
    assert not allowance.spend(1e6, lambda: gate.BURST_BYTES + 1)
    assert allowance.spend(1e6, lambda: gate.BURST_BYTES)


HEAVIEST: Final = quarantine.BODY_BYTES + 2 * (quarantine.URL_CHARACTERS + MAX_HEADER_BYTES) + 4_000
"""Bytes of the largest delivery there can be: the body, and texts of which a character may take two."""


def test_an_hour_of_a_flood_is_less_than_there_is_room_for() -> None:
    """Of rows and of bytes, the largest delivery and the burst included; and the largest is allowed at all."""
    assert gate.BURST + 3_600 / gate.SECONDS_EACH < quarantine.ROWS
    assert gate.BURST_BYTES + 3_600 * gate.BYTES_PER_SECOND < quarantine.BYTES / 2 - HEAVIEST
    assert gate.BURST_BYTES > HEAVIEST


@pytest.mark.parametrize("size", [0, 4_500, 30_000, quarantine.BODY_BYTES])
def test_a_flood_of_an_hour_pushes_nothing_out(inbox: Inbox, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """What was refused before stays, small and large, whatever a stranger sends through this process for an hour."""
    monkeypatch.setattr(gate, "DIAGNOSED_BYTES", -1)
    refused = Rejected(Reason.BAD_SIGNATURE, "as asked")
    genuine = [WebhookRequest(b"x" * each, url="http://test/mine") for each in (100, 4_000, 50_000, 200_000)]
    attack = WebhookRequest(b"a" * size, url="http://test/theirs")
    now = 0.0

    async def work() -> None:
        nonlocal now
        connections = HttpConnections(inbox.settings)
        kept = gate.Quarantine(connections, lambda: now)
        for request in genuine:
            kept.take(STRIPE, request, (), now, refused)
        await kept.finish()
        for _ in range(10):  # 32 may wait at a time
            for _ in range(gate.WAITING):
                kept.take(STRIPE, attack, (), now, refused)
            await kept.finish()
        while now < 3_600:
            now += gate.SECONDS_EACH
            kept.take(STRIPE, attack, (), now, refused)
            await kept.finish()
        await connections.close()

    asyncio.run(work())
    rows = rejected(inbox)
    mine = [row["tamano"] for row in rows if row["url"] == "http://test/mine"]
    assert mine == [100, 4_000, 50_000, 200_000]
    assert len(rows) > len(mine), "and some of the others are kept"


def test_large_ones_go_first(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come, from however many processes: light ones stay, and of the large ones the newest."""
    monkeypatch.setattr(quarantine, "ROWS", 100)
    monkeypatch.setattr(quarantine, "BYTES", 200_000)
    refused = Rejected(Reason.BAD_SIGNATURE, "as asked")

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(inbox.settings.database_url, autocommit=True) as conn:
            for size in (10, 30_000, 500, *[30_000] * 20, 20):
                await quarantine.keep(conn, STRIPE, WebhookRequest(b"x" * size), refused)

    asyncio.run(work())
    rows = rejected(inbox)
    assert [row["tamano"] for row in rows if row["tamano"] < 1_000] == [10, 500, 20]
    assert [row["id"] for row in rows if row["tamano"] == 30_000] == [*range(18, 24)]
    assert sum(row["peso"] for row in rows) <= quarantine.BYTES


def test_what_a_delivery_weighs_is_never_more_than_was_counted(inbox: Inbox) -> None:
    """With headers that take more room in JSON, and an address in other letters."""
    headers = Headers([(b"stripe-signature", b'"\xe9\\"' * 100), (b"user-agent", b"\xff" * 500)])
    request = WebhookRequest(b"x" * 1_000, headers, "http://test/\xe9")
    refused = Rejected(Reason.BAD_SIGNATURE, "\xe9" * 2_000)

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(inbox.settings.database_url, autocommit=True) as conn:
            await quarantine.keep(conn, STRIPE, request, refused, "c" * 2_000)

    asyncio.run(work())
    (row,) = rejected(inbox)
    counted = quarantine.weight(STRIPE, request, refused)
    assert 1_000 < row["peso"] <= counted < row["peso"] + 2_000


def test_a_quarantine_that_hangs_delays_nobody(inbox: Inbox, signed: Sign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has locked its table: the bad are refused, the good are stored, and what waits is bounded."""
    monkeypatch.setattr(gate, "WAITING", 4)
    bad = signed(secrets=["whsec_other"])

    async def post_(client: httpx.AsyncClient, delivery: Delivery) -> int:
        answer = await client.post("/api/webhooks/stripe", content=delivery.body, headers=delivery.headers)
        return answer.status_code

    async def work(client: httpx.AsyncClient) -> list[int]:
        async with await psycopg.AsyncConnection.connect(inbox.settings.database_url) as holder:
            await holder.execute("lock table cauce.rechazados in access exclusive mode")
            refused = [await post_(client, bad) for _ in range(10)]
            return [*refused, await post_(client, signed())]

    assert inbox.run(work) == [400] * 10 + [200]
    assert len(inbox.events()) == 1
    assert 1 <= len(rejected(inbox)) <= 1 + 4, "one in hand, and those that wait"


def test_a_database_that_is_away_changes_no_answer(
    inbox: Inbox, signed: Sign, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad signature is a bad signature; it is not kept, and the log says so. The next one is."""
    dsn, bad = inbox.settings.database_url, signed(secrets=["whsec_other"])
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    inbox.configure(database_url=f"postgresql://postgres@127.0.0.1:{port}/postgres")
    assert inbox.deliver(bad).status_code == 400
    assert any("cannot store a refused delivery of" in message for message in caplog.messages)
    inbox.configure(database_url=dsn)
    assert inbox.deliver(bad).status_code == 400
    assert len(rejected(inbox)) == 1


def test_what_is_old_goes(inbox: Inbox, signed: Sign) -> None:
    """By any worker's upkeep, after ``CAUCE_QUARANTINE_DAYS``; whatever the retention of events."""
    for _ in range(2):
        inbox.deliver(signed(secrets=["whsec_other"]))
    age = "update cauce.rechazados set recibido_en = recibido_en - interval '30 days 1 min' where id = 1 returning 1"
    inbox.query(age)

    async def once() -> None:
        async with aclosing(Upkeep(inbox.settings, "w", ["principal"])) as upkeep:
            await upkeep.once()

    asyncio.run(once())
    assert [row["id"] for row in rejected(inbox)] == [2]


def test_pruning_is_bounded(inbox: Inbox) -> None:
    """The oldest go first, so many in a statement."""
    keep(inbox, 8)
    prune = "select cauce.purgar_rechazados(interval '-1 hour', 5) n"
    assert inbox.query(prune) == [{"n": 5}]
    assert [row["id"] for row in rejected(inbox)] == [6, 7, 8]
    assert inbox.query("select cauce.purgar_rechazados(interval '1 hour', 5) n") == [{"n": 0}]
