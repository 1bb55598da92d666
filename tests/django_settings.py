"""The settings of Django, which a process configures once: for the inbox in Django, and for its ORM in handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse


def anonymous(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Give Django's ``LoginRequiredMiddleware`` the user it asks for: nobody."""

    def middleware(request: HttpRequest) -> HttpResponse:
        from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415 - needs Django's settings

        request.user = AnonymousUser()
        return get_response(request)

    return middleware


def configure() -> None:
    """Switch on whatever would stand in the way of a webhook; there is no database."""
    if settings.configured:
        return
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.dummy", "ATOMIC_REQUESTS": True}},
        DATA_UPLOAD_MAX_MEMORY_SIZE=10,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            f"{__name__}.anonymous",
            "django.contrib.auth.middleware.LoginRequiredMiddleware",
        ],
        SECRET_KEY="of tests",
    )
    django.setup()
