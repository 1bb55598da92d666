"""GitLab's older scheme: ``X-Gitlab-Token`` holds the secret itself, and nothing is signed.

Anyone who sees one request can forge others. Prefer a signing token, which makes GitLab follow Standard Webhooks
(``PROVIDERS["gitlab"]``). Everything taken from such a request is marked ``sin_firmar``, and the token is never stored.
After 4xx GitLab disables the webhook permanently, after 5xx for a while. Rules from
https://docs.gitlab.com/user/project/integrations/webhooks/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cauce.webhooks.provider import DAY, Draft, Provider, Unsigned, header_of
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import matching_secret
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

_HEADER = "X-Gitlab-Token"


@dataclass(frozen=True, kw_only=True)
class GitLabToken(Provider):
    """GitLab with a secret token."""

    origen: str = "gitlab_token"
    title: str = "GitLab, secret token"
    secret_setting: str = "GITLAB_WEBHOOK_TOKEN"
    id_from: tuple[str, ...] = ("header:idempotency-key", "header:x-gitlab-event-uuid")
    type_from: tuple[str, ...] = ("body:object_kind", "body:event_name", "header:x-gitlab-event")
    accept_unsigned: frozenset[Unsigned] = frozenset({"tipo", "id_externo"})
    keep_headers: tuple[str, ...] = (
        "idempotency-key",
        "x-gitlab-event",
        "x-gitlab-event-uuid",
        "x-gitlab-instance",
        "x-gitlab-webhook-uuid",
    )
    retry_horizon: float = DAY
    documentation: ClassVar[str] = "https://docs.gitlab.com/user/project/integrations/webhooks/"

    @property
    def signed(self) -> SignedScope:
        """Nothing."""
        return SignedScope()

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Compare the token in constant time."""
        token = header_of(request, _HEADER)
        index = matching_secret(secrets, [token], _token)
        if index is None:
            raise Refusal(Reason.BAD_SIGNATURE, f"{_HEADER} is none of the tokens in {self.secret_setting}")
        return Verified("token", self.signed, index)

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Make a delivery with its token."""
        headers = {"content-type": draft.content_type, _HEADER: secret.text.strip()}
        headers |= {"idempotency-key": draft.id_externo} if draft.id_externo else {}
        headers |= {"x-gitlab-event": draft.tipo} if draft.tipo else {}
        return WebhookRequest(draft.body, Headers.of(headers), draft.url)


def _token(secret: Secret) -> str:
    """Return the token; one that is not ASCII cannot come in a header."""
    text = secret.text.strip()
    if not text.isascii():
        raise Refusal(Reason.MALFORMED_SECRET, "a token is not ASCII, so no header can hold it")
    return text
