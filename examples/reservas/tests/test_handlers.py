"""Each handler and subscriber alone, called with a made-up event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cauce import Discard
from cauce.stripe import StripeData, StripeEvent
from cauce.testing import Database, call, eventos
from events.reserva.handlers.reserva_cancelada import reserva_cancelada
from events.reserva.handlers.reserva_creada import reserva_creada
from events.stripe.handlers.checkout_session_completed import checkout_session_completed
from events.stripe.handlers.payment_intent_succeeded import payment_intent_succeeded
from events.subscribers.bitacora import bitacora
from events.subscribers.correo import correo
from events.types.eventos import CheckoutSession, PaymentIntent, ReservaCancelada, ReservaCreada, ReservaEvents
from services.reservas import apartar_reserva, cancelar_reserva, crear_reserva

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from examples.reservas.tests.conftest import Mailbox

CREADA = ReservaCreada(reserva_id=42, cliente="Ana", correo="ana@example.com")
CANCELADA = ReservaCancelada(reserva_id=42, correo="ana@example.com", motivo="overbooked")


@pytest.fixture
def conn(cauce_db: Database) -> Iterator[Connection[Any]]:
    """A connection that the handlers share with the test."""
    with cauce_db.connect(autocommit=True) as conn:
        yield conn


def checkout(reserva_id: int | None, payment_status: str = "paid") -> StripeEvent[CheckoutSession]:
    """Make Stripe's event of a finished session."""
    session = CheckoutSession(id="cs_1", payment_status=payment_status, client_reference_id=reserva_id)
    return StripeEvent[CheckoutSession](
        id="evt_1", type="checkout.session.completed", created=1_760_000_000, data=StripeData(object=session)
    )


def payment(reserva_id: int | None) -> StripeEvent[PaymentIntent]:
    """Make Stripe's event of a payment."""
    metadata = {} if reserva_id is None else {"reserva_id": str(reserva_id)}
    intent = PaymentIntent(id="pi_1", amount_received=20_000, currency="eur", metadata=metadata)
    return StripeEvent[PaymentIntent](
        id="evt_2", type="payment_intent.succeeded", created=1_760_000_000, data=StripeData(object=intent)
    )


def test_a_checkout_pays_the_reservation_and_says_that_it_stands(conn: Connection[Any]) -> None:
    """Its state changes and `reserva.creada` is published, in one transaction."""
    reserva_id = apartar_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
    call(checkout_session_completed, checkout(reserva_id), tx=conn)
    assert conn.execute("select estado from reservas").fetchall() == [("pagada",)]
    assert [(evento.tipo, evento.clave) for evento in eventos(conn)] == [("reserva.creada", str(reserva_id))]


def test_a_checkout_that_is_not_paid_yet_changes_nothing(conn: Connection[Any]) -> None:
    """A bank transfer takes days; Stripe tells when it has come."""
    reserva_id = apartar_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
    call(checkout_session_completed, checkout(reserva_id, "unpaid"), tx=conn)
    assert conn.execute("select estado from reservas").fetchall() == [("pendiente",)]
    assert eventos(conn) == []


@pytest.mark.parametrize("known", [True, False])
def test_a_checkout_of_no_waiting_reservation_is_given_up(conn: Connection[Any], *, known: bool) -> None:
    """No attempt would ever succeed: of a reservation that was cancelled meanwhile, or of none."""
    reserva_id = None
    if known:
        reserva_id = apartar_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
        cancelar_reserva(conn, reserva_id, "too late")
    with pytest.raises(Discard, match="waits for no payment"):
        call(checkout_session_completed, checkout(reserva_id), tx=conn)


def test_a_payment_is_recorded_once(conn: Connection[Any]) -> None:
    """Stripe may tell twice, under two ids."""
    reserva_id = apartar_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
    for _ in range(2):
        call(payment_intent_succeeded, payment(reserva_id), tx=conn)
    assert conn.execute("select * from pagos").fetchall() == [("pi_1", reserva_id, 20_000, "eur", False)]


def test_a_payment_for_something_else_is_recorded_too(conn: Connection[Any]) -> None:
    """The bar takes cards as well."""
    call(payment_intent_succeeded, payment(None), tx=conn)
    assert conn.execute("select reserva_id, importe from pagos").fetchall() == [(None, 20_000)]


def test_a_new_reservation_gets_its_code_once(conn: Connection[Any]) -> None:
    """The guest's code does not change when the event is delivered again."""
    reserva_id = crear_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
    payload = ReservaCreada(reserva_id=reserva_id, cliente="Ana", correo="ana@example.com")
    call(reserva_creada, payload, tx=conn)
    codes = conn.execute("select localizador from reservas").fetchall()
    call(reserva_creada, payload, tx=conn, attempt=2)
    assert codes != [(None,)]
    assert conn.execute("select localizador from reservas").fetchall() == codes


def test_a_cancelled_reservation_gives_its_money_back(conn: Connection[Any]) -> None:
    """Its payments are marked, and no others."""
    reserva_id = apartar_reserva(conn, "Ana", "ana@example.com", noches=2, importe=20_000)
    call(payment_intent_succeeded, payment(reserva_id), tx=conn)
    conn.execute("insert into pagos values ('pi_other', null, 1, 'eur')")
    call(reserva_cancelada, CANCELADA.model_copy(update={"reserva_id": reserva_id}), tx=conn)
    assert conn.execute("select payment_intent from pagos where devolver").fetchall() == [("pi_1",)]


def test_the_log_book_gets_a_line(conn: Connection[Any]) -> None:
    """It says who told what, about which key."""
    call(bitacora, CREADA, tx=conn, tipo=ReservaEvents.reserva_creada, clave="42")
    assert conn.execute("select nota from bitacora").fetchall() == [("reserva: reserva.creada (42)",)]


@pytest.mark.parametrize(
    ("payload", "subject", "text"),
    [
        (CREADA, "Su reserva", "Hola, Ana: su reserva 42 queda confirmada."),
        (CANCELADA, "Su reserva ha sido cancelada", "Su reserva 42 ha sido cancelada: overbooked."),
    ],
    ids=["creada", "cancelada"],
)
def test_the_guest_gets_an_e_mail(
    mailbox: Mailbox, payload: ReservaCreada | ReservaCancelada, subject: str, text: str
) -> None:
    """Over SMTP, to the guest's address, in words that fit the event."""
    if isinstance(payload, ReservaCreada):
        call(correo, payload)
    else:
        call(correo, payload)
    (message,) = mailbox.messages
    assert (message["To"], message["Subject"]) == ("ana@example.com", subject)
    assert str(message.get_payload()).strip() == text


def test_another_attempt_sends_the_same_message_id(mailbox: Mailbox) -> None:
    """Whoever reads mail can tell a second copy from a second message."""
    call(correo, CREADA)
    call(correo, CREADA, attempt=2)
    first, second = mailbox.messages
    assert first["Message-ID"] == second["Message-ID"] == "<1.principal.manejador@reservas.example.com>"


def test_an_address_that_is_refused_for_good_is_given_up(mailbox: Mailbox) -> None:
    """SMTP's 550 says: never. 450 says: later, so the delivery is tried again."""
    mailbox.refused["ana@example.com"] = 550
    with pytest.raises(Discard, match="550"):
        call(correo, CREADA)
    mailbox.refused["ana@example.com"] = 450
    with pytest.raises(OSError, match="450"):
        call(correo, CREADA)
