"""The HTTP face: webhooks come in, a cron calls, a load balancer asks how things are.

``create_app`` makes a Starlette application to serve by itself or to mount in any other ASGI application. Other
frameworks have faces of their own in ``cauce.web.fastapi``, ``.django``, ``.flask`` and ``.wsgi``, each to be imported
by those who have the framework.
"""

from __future__ import annotations

from cauce.web.answers import ErrorCode
from cauce.web.app import create_app
from cauce.web.salud import without_query, without_salud
from cauce.web.secrets import SecretSource

__all__ = ["ErrorCode", "SecretSource", "create_app", "without_query", "without_salud"]
