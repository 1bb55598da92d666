"""GitHub: ``X-Hub-Signature-256: sha256=<hex>``, HMAC-SHA256 over the body alone.

Neither the event's name (``X-GitHub-Event``) nor the delivery's id (``X-GitHub-Delivery``) is signed: anyone with one
valid delivery can send it again with another id, or as another event. So events are identified by a hash of the body,
unless ``accept_unsigned`` names ``id_externo``. The unsigned name is accepted, but a name that does not fit the signed
body is refused, and the same body with another name is a duplicate. ``tipo`` is ``<event>.<action>``, or
``<event>`` for events without actions. GitHub never retries. Rules from
https://docs.github.com/en/webhooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from cauce.webhooks.limits import MAX_TIPO
from cauce.webhooks.payload import JsonValue, Payload, at, read_embedded, read_json
from cauce.webhooks.provider import DAY, Found, Unsigned, is_storable
from cauce.webhooks.request import WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import HmacProvider
from cauce.webhooks.verdict import Reason, Refusal, Verified

SHAPES: Final = {
    "check_run": "check_run",
    "check_suite": "check_suite",
    "commit_comment": "comment",
    "create": "ref_type",
    "delete": "ref_type",
    "deployment": "deployment",
    "deployment_status": "deployment_status",
    "discussion": "discussion",
    "fork": "forkee",
    "gollum": "pages",
    "installation": "installation",
    "issue_comment": "comment",
    "issues": "issue",
    "label": "label",
    "member": "member",
    "milestone": "milestone",
    "ping": "zen",
    "pull_request": "pull_request",
    "pull_request_review": "review",
    "pull_request_review_comment": "comment",
    "push": "commits",
    "release": "release",
    "status": "sha",
    "workflow_job": "workflow_job",
    "workflow_run": "workflow_run",
}
"""A key that the body of each of these events always has; events that are not listed are not checked."""


@dataclass(frozen=True, kw_only=True)
class GitHub(HmacProvider):
    """GitHub repositories, organizations and apps; JSON and form content types."""

    origen: str = "github"
    title: str = "GitHub"
    secret_setting: str = "GITHUB_WEBHOOK_SECRET"
    header: str = "X-Hub-Signature-256"
    prefix: str = "sha256="
    id_from: tuple[str, ...] = ("header:x-github-delivery",)
    type_from: tuple[str, ...] = ("header:x-github-event",)
    accept_unsigned: frozenset[Unsigned] = frozenset({"tipo"})
    keep_headers: tuple[str, ...] = ("x-github-event", "x-github-delivery", "x-github-hook-id", "x-hub-signature-256")
    retry_horizon: float = 3 * DAY
    documentation: ClassVar[str] = "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"

    @property
    def evidence(self) -> tuple[str, ...]:
        """The SHA-1 signature too: a request that has only this one is refused with its own reason."""
        return ("x-hub-signature", *super().evidence)

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Verify the body, then see whether the unsigned name of the event can be true."""
        if not request.headers.all(self.header) and request.headers.all("X-Hub-Signature"):
            raise Refusal(Reason.WRONG_SCHEME, f"signed with SHA-1 only; there is no {self.header}")
        verified = super().check(request, secrets, now)
        key = SHAPES.get(request.headers.get("x-github-event") or "")
        value = next(iter(self.payloads(request))).value
        if key is not None and isinstance(value, dict) and key not in value:
            raise Refusal(Reason.CONTRADICTION, f"X-GitHub-Event names an event that has {key!r}, which is not here")
        return verified

    def payloads(self, request: WebhookRequest) -> Sequence[Payload]:
        """Read JSON, or JSON in the field ``payload`` of a form."""
        if request.body.startswith(b"payload="):
            return (read_embedded(request.body, "payload"),)
        return (read_json(request.body),)

    def tipo_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Join the event's name and the action in the signed body."""
        event, action = super().tipo_of(request, value), at(value, "action")
        if event is None or not isinstance(action, str):
            return event
        tipo = f"{event.text}.{action}"
        return Found(tipo, event.place) if is_storable(tipo, MAX_TIPO) else event
