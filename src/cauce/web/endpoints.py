"""The three endpoints of an application, which the faces for each framework serve.

A face finds the endpoint of a path, calls ``respond`` with the request as an ASGI scope and a ``receive``
for its body, and turns the ``Answer``, which is plain data, into its framework's response. docs/adr/0015-faces.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from cauce.config import Settings, expect_application
from cauce.web.connections import HttpConnections
from cauce.web.salud import PATH, Salud
from cauce.web.secrets import SecretSource, secrets_in
from cauce.web.trabajadores import ProcesarLote
from cauce.web.webhooks import Webhooks

if TYPE_CHECKING:
    from cauce.bus import Bus
    from cauce.web.answers import Endpoint
    from cauce.webhooks import Provider

PATHS: Final[Mapping[str, str]] = {
    "webhooks": "/api/webhooks/{origen}",
    "procesar_lote": "/api/trabajadores/procesar_lote",
    "salud": PATH,
}
"""Where each endpoint is, as Starlette writes a path."""
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
"""The methods for frameworks that need a list; the endpoints themselves refuse wrong ones."""


def own_providers(bus: Bus, providers: Iterable[Provider]) -> tuple[Provider, ...]:
    """Return an application's own providers: its bus's, and those given; of one ``origen`` the last counts."""
    return (*bus.providers, *providers)


class Endpoints:
    """The endpoints and the connections they share; ``create_app`` says what the arguments are.

    They belong to one event loop of one process. Nothing is connected to before the first request.

    Raises:
        ConfigError: ``DATABASE_URL`` is not set, or a secret's setting cannot be read.
    """

    def __init__(
        self, bus: Bus, settings: Settings, *, providers: Iterable[Provider] = (), secrets: SecretSource | None = None
    ) -> None:
        expect_application(bus, settings, "the inbox")
        self._connections = HttpConnections(settings)
        known = own_providers(bus, providers)
        self._inbox = Webhooks(self._connections, known, secrets or secrets_in(settings, known), settings)
        self.by_name: Mapping[str, Endpoint] = {
            "webhooks": self._inbox,
            "procesar_lote": ProcesarLote(bus, settings),
            "salud": Salud(self._connections),
        }
        """One endpoint for each of ``PATHS``."""

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncGenerator[None]:
        """Close the connections when the application ends."""
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the idle connections; a later request makes new ones."""
        await self._inbox.finish()
        await self._connections.close()
