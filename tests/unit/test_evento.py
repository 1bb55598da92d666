"""What an event is, as handlers and publishers hold it: the columns of the table, and nothing that can be changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cauce import Attempt, Catalog, Estado, Evento, EventType, NuevoEvento, RetryAfter

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Events(Catalog, origen="evento"):
    """A catalog."""

    uno = EventType("uno", dict[str, int])


def test_states_are_those_of_the_column() -> None:
    """Spelled as the database spells them."""
    assert [str(estado) for estado in Estado] == ["pendiente", "en_proceso", "procesado", "error"]


def test_an_event_cannot_be_changed() -> None:
    """One handler's event is every handler's."""
    evento = Evento(1, "evento", "uno", {"n": 1}, 1, 5, NOW)
    with pytest.raises(AttributeError):
        evento.intentos = 2  # type: ignore[misc]  # wrong on purpose
    assert (evento.clave, evento.id_externo, dict(evento.cabeceras)) == (None, None, {})
    with pytest.raises(TypeError):
        evento.cabeceras["a"] = 1  # type: ignore[index]  # wrong on purpose


def test_fields_are_columns() -> None:
    """Nothing has another name in Python than in the table."""
    assert Evento._fields == (
        "id", "origen", "tipo", "payload", "intentos", "prioridad", "creado_en", "clave", "id_externo", "cabeceras",
        "causa", "correlacion",
    )  # fmt: skip


def test_a_new_event_cannot_be_changed_either() -> None:
    """It may be kept and published later."""
    nuevo = NuevoEvento(Events.uno, {"n": 1}, clave="k")
    with pytest.raises(AttributeError):
        nuevo.clave = "other"  # type: ignore[misc]  # wrong on purpose


@pytest.mark.parametrize(("asked", "kept"), [(5, 5.0), (-1, 0.0), (0.5, 0.5), ("3", 3.0)])
def test_retry_after_keeps_seconds_that_make_sense(asked: Any, kept: float) -> None:
    """Never into the past; the reason is said, or made."""
    assert RetryAfter(asked).seconds == kept
    assert str(RetryAfter(5)) == "asked to be tried again in 5 s"
    assert str(RetryAfter(5, "the bank sleeps")) == "the bank sleeps"


def test_an_attempt_is_what_it_says() -> None:
    """Its key is the same at every attempt of a delivery, for systems that deduplicate."""
    attempt = Attempt(number=2, last=False, subscriber="s", group="principal", idempotency_key="1:principal:s")
    with pytest.raises(AttributeError):
        attempt.number = 3  # type: ignore[misc]  # wrong on purpose
