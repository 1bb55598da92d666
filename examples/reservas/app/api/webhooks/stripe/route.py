"""``POST /api/webhooks/stripe``: the signature is verified, the event stored and committed, and only then answered."""

from starlette.routing import Route

from services.http import endpoints

route = Route("/api/webhooks/stripe", endpoints)
