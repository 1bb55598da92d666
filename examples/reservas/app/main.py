"""The web application: its routes. Those of the pages would be added here."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette

from services.http import endpoints

from .api.trabajadores.procesar_lote.route import route as procesar_lote
from .api.webhooks.stripe.route import route as webhooks_stripe


def lifespan(_: Starlette) -> AbstractAsyncContextManager[Any]:
    """Close the connections of the endpoints at the end."""
    return endpoints.router.lifespan_context(endpoints)


app = Starlette(routes=[webhooks_stripe, procesar_lote], lifespan=lifespan)
