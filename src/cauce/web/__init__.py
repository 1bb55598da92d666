"""The HTTP endpoints: webhooks, a cron's calls, health checks.

``create_app`` makes a Starlette application to serve by itself or to mount in any ASGI application. For other
frameworks there are ``cauce.web.fastapi``, ``.django``, ``.flask`` and ``.wsgi``.
"""

from __future__ import annotations

from cauce.web.answers import ErrorCode
from cauce.web.app import create_app
from cauce.web.salud import without_query, without_salud
from cauce.web.secrets import SecretSource

__all__ = ["ErrorCode", "SecretSource", "create_app", "without_query", "without_salud"]
