"""``GET|POST /api/trabajadores/procesar_lote``: for a cron, instead of a worker or beside one. Stripe first."""

from starlette.routing import Route

from services.http import endpoints

route = Route("/api/trabajadores/procesar_lote", endpoints)
