"""The guest's e-mail. It takes no ``tx``: it is sent at least once, always with the same Message-ID."""

import os
import smtplib
from email.message import EmailMessage
from typing import Final

from cauce import Attempt, Discard, Evento
from events.types.eventos import ReservaCancelada, ReservaCreada

SENDER: Final = "reservas@example.com"
TIMEOUT_SECONDS: Final = 10.0
PERMANENT: Final = 500
"""SMTP replies from this code on are permanent failures (RFC 5321, section 4.2.1)."""


def correo(evento: Evento[ReservaCreada] | Evento[ReservaCancelada], attempt: Attempt) -> None:
    """Send the guest an e-mail through the server in ``SMTP_SERVER`` (host:port, by default localhost:25).

    Raises:
        Discard: the server permanently refuses that address.
        OSError: the server cannot be reached, or refuses for now; the delivery is retried.
    """
    message = compose(evento.payload)
    message["Message-ID"] = f"<{attempt.idempotency_key.replace(':', '.')}@reservas.example.com>"
    host, _, port = os.environ.get("SMTP_SERVER", "localhost:25").partition(":")
    try:
        with smtplib.SMTP(host, int(port or 25), timeout=TIMEOUT_SECONDS) as server:
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        if all(code >= PERMANENT for code, _ in error.recipients.values()):
            raise Discard(f"{evento.payload.correo} was refused: {error}") from error
        raise


def compose(payload: ReservaCreada | ReservaCancelada) -> EmailMessage:
    """Compose the message."""
    message = EmailMessage()
    message["From"], message["To"] = SENDER, payload.correo
    match payload:
        case ReservaCreada():
            message["Subject"] = "Su reserva"
            message.set_content(f"Hola, {payload.cliente}: su reserva {payload.reserva_id} queda confirmada.\n")
        case ReservaCancelada():
            message["Subject"] = "Su reserva ha sido cancelada"
            message.set_content(f"Su reserva {payload.reserva_id} ha sido cancelada: {payload.motivo}.\n")
    return message
