"""The business: reservations are made and cancelled here, and what happened is published in the same transaction."""

from typing import Any

from psycopg import Connection

from cauce import publicar_evento
from events.types.eventos import ReservaCancelada, ReservaCreada, ReservaEvents


def apartar_reserva(conn: Connection[Any], cliente: str, correo: str, *, noches: int, importe: int) -> int:
    """Hold a room for a customer who goes to Stripe to pay; return the id to give to Stripe.

    Nothing is published: ``checkout.session.completed`` confirms the reservation.
    """
    with conn.transaction():
        return _insert(conn, cliente, correo, noches, importe, "pendiente")


def crear_reserva(conn: Connection[Any], cliente: str, correo: str, *, noches: int, importe: int) -> int:
    """Create a reservation that is paid at the desk, and return its id."""
    with conn.transaction():
        reserva_id = _insert(conn, cliente, correo, noches, importe, "pagada")
        creada = ReservaCreada(reserva_id=reserva_id, cliente=cliente, correo=correo)
        publicar_evento(conn, ReservaEvents.reserva_creada, creada)
    return reserva_id


def cancelar_reserva(conn: Connection[Any], reserva_id: int, motivo: str) -> bool:
    """Cancel a reservation; False: it does not exist, or is cancelled already."""
    with conn.transaction():
        row = conn.execute(
            "update reservas set estado = 'cancelada' where id = %s and estado <> 'cancelada' returning correo",
            [reserva_id],
        ).fetchone()
        if row is None:
            return False
        cancelada = ReservaCancelada(reserva_id=reserva_id, correo=row[0], motivo=motivo)
        publicar_evento(conn, ReservaEvents.reserva_cancelada, cancelada)
    return True


def _insert(conn: Connection[Any], cliente: str, correo: str, noches: int, importe: int, estado: str) -> int:  # noqa: PLR0913, PLR0917 - the columns
    row = conn.execute(
        "insert into reservas (cliente, correo, noches, importe, estado) values (%s, %s, %s, %s, %s) returning id",
        [cliente, correo, noches, importe, estado],
    ).fetchone()
    if row is None:
        raise LookupError("the insert returned no id")
    return int(row[0])
