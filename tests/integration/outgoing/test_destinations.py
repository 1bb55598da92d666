"""What is remembered of destinations, in a real database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest

from cauce import ConfigError, Discard, Settings
from cauce.outgoing import DeliveryFailed, Destinations, Webhook
from cauce.testing import Database
from tests.integration.outgoing.kit import OK, OWN, SECRET, Receiver, deliver, status

if TYPE_CHECKING:
    Receive = Callable[..., Receiver]


@pytest.fixture
def destinations(db: Database) -> Iterator[Destinations]:
    """The record, in a fresh database."""
    record = Destinations(db.settings)
    yield record
    record.close()


def fail_since(db: Database, days: float) -> None:
    """Let every destination have been failing for so many days."""
    with db.connect() as conn:
        conn.execute(
            "update cauce.destinos set fallando_desde = clock_timestamp() - make_interval(secs => %s)", [86_400 * days]
        )


def failing(webhook: Webhook) -> None:
    """Make a delivery that fails."""
    with pytest.raises(DeliveryFailed):
        deliver(webhook)


def test_a_destination_that_works_leaves_no_trace(receive: Receive, destinations: Destinations) -> None:
    """A success writes nothing: a delivery costs one query."""
    webhook = Webhook(receive(OK).url(), SECRET, rules=OWN, destinations=destinations)
    deliver(webhook)
    assert destinations.find(webhook.destino) is None


def test_a_failure_is_noted_and_a_success_ends_it(receive: Receive, destinations: Destinations) -> None:
    """The first failure since the last success counts; what it was stays to be read."""
    receiver = receive(status(500, b"uno"), status(500, b"dos"), OK)
    webhook = Webhook(receiver.url(), SECRET, rules=OWN, destinations=destinations)
    failing(webhook)
    first = destinations.find(webhook.destino)
    assert first is not None
    assert first.fallando_desde == first.ultimo_fallo_en
    assert first.deshabilitado_en is None
    failing(webhook)
    second = destinations.find(webhook.destino)
    assert second is not None
    assert second.fallando_desde == first.fallando_desde
    assert (second.ultimo_error or "").endswith("answered 500: dos")
    deliver(webhook)
    third = destinations.find(webhook.destino)
    assert third is not None
    assert third.fallando_desde is None
    assert third.ultimo_error == second.ultimo_error


def test_gone_disables_until_somebody_enables(receive: Receive, destinations: Destinations) -> None:
    """After a 410 nothing is sent any more, and every delivery says why; enabled, they go out again."""
    receiver = receive(status(410, b"closed"), OK)
    webhook = Webhook(receiver.url(), SECRET, rules=OWN, destinations=destinations)
    with pytest.raises(Discard, match="answered 410: closed"):
        deliver(webhook)
    with pytest.raises(Discard, match=rf"{webhook.destino} is disabled since .*: .* answered 410: closed"):
        deliver(webhook)
    assert len(receiver.requests) == 1
    assert destinations.enable(webhook.destino)
    deliver(webhook)
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(("days", "disabled"), [(4.9, False), (5.1, True)])
def test_days_of_failure_disable(
    receive: Receive, destinations: Destinations, db: Database, days: float, *, disabled: bool
) -> None:
    """A failure after five days without a success disables; one before does not."""
    receiver = receive(status(500, b"still"))
    webhook = Webhook(receiver.url(), SECRET, rules=OWN, destinations=destinations)
    failing(webhook)
    fail_since(db, days)
    failing(webhook)
    known = destinations.find(webhook.destino)
    assert known is not None
    assert (known.deshabilitado_en is not None) == disabled
    assert ("every delivery since" in (known.motivo or "")) == disabled
    with pytest.raises(Discard if disabled else DeliveryFailed):
        deliver(webhook)
    assert len(receiver.requests) == (2 if disabled else 3)


def test_a_success_within_those_days_starts_them_anew(
    receive: Receive, destinations: Destinations, db: Database
) -> None:
    """Only failures in a row count."""
    receiver = receive(status(500), OK, status(500))
    webhook = Webhook(receiver.url(), SECRET, rules=OWN, destinations=destinations)
    failing(webhook)
    fail_since(db, 6)
    deliver(webhook)
    failing(webhook)
    known = destinations.find(webhook.destino)
    assert known is not None
    assert known.deshabilitado_en is None


def test_unreachable_and_refused_receivers_count_as_failing(destinations: Destinations) -> None:
    """No answer, or a forbidden address, is a failure like any other."""
    for addresses, words in ((["127.0.0.1"], "loopback"), ([], "no address")):
        webhook = Webhook(
            "https://socio.example/",
            SECRET,
            destino=words,
            destinations=destinations,
            resolver={"socio.example": addresses}.__getitem__,
        )
        failing(webhook)
        known = destinations.find(words)
        assert known is not None
        assert words in (known.ultimo_error or "")


def test_the_first_reason_stays(destinations: Destinations) -> None:
    """What is disabled is not disabled again, and a success or failure on its way does not enable it."""
    destinations.disable("socio", "asked by telephone")
    first = destinations.find("socio")
    destinations.disable("socio", "again")
    destinations.succeeded("socio")
    assert destinations.failed("socio", "late") == "asked by telephone"
    after = destinations.find("socio")
    assert first is not None
    assert after is not None
    assert (after.motivo, after.deshabilitado_en) == ("asked by telephone", first.deshabilitado_en)


def test_enabling_says_whether_it_was_disabled(destinations: Destinations) -> None:
    """Unknown and failing destinations were not; enabled ones start with a clean record."""
    assert not destinations.enable("socio")
    destinations.failed("socio", "x")
    assert not destinations.enable("socio")
    destinations.disable("socio", "x")
    assert destinations.enable("socio")
    assert destinations.find("socio") is None


def test_texts_are_cut(destinations: Destinations) -> None:
    """A reason of any length is stored as far as it is of use."""
    destinations.disable("socio", "x" * 10_000)
    destinations.failed("otro", "y" * 10_000)
    one, two = destinations.find("socio"), destinations.find("otro")
    assert one is not None
    assert two is not None
    assert (one.motivo, two.ultimo_error) == ("x" * 500, "y" * 500)


def test_a_lost_connection_is_made_anew(destinations: Destinations, db: Database) -> None:
    """A restarted server or a lost connection loses no delivery."""
    destinations.disable("socio", "x")
    with db.connect(autocommit=True) as conn:
        conn.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where application_name = 'cauce destinations' and datname = current_database()"
        )
    assert destinations.find("socio") is not None


def test_deliveries_do_not_depend_on_the_record(receive: Receive, caplog: pytest.LogCaptureFixture) -> None:
    """With the database out of reach the delivery goes out, and says what it could not ask."""
    receiver = receive(OK, status(410))
    nowhere = Destinations(Settings(database_url="host=127.0.0.1 port=1 dbname=x"))
    webhook = Webhook(receiver.url(), SECRET, rules=OWN, destinations=nowhere)
    deliver(webhook)
    with pytest.raises(Discard):
        deliver(webhook)
    assert len(receiver.requests) == 2
    assert "is out of reach" in caplog.text


def test_the_environment_says_where_the_record_is(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings, DATABASE_URL is read when it is first needed, and missed by name."""
    record = Destinations()
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        record.find("socio")
    monkeypatch.setenv("DATABASE_URL", db.dsn)
    assert record.find("socio") is None
    record.close()


def test_a_disabled_destination_has_a_reason(db: Database) -> None:
    """The table itself refuses one without the other."""
    with db.connect() as conn, pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("insert into cauce.destinos (destino, deshabilitado_en) values ('socio', now())")
