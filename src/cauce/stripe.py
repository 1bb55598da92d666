"""Types of Stripe's payloads: the payload of a Stripe event is the whole Stripe event, as it came.

They take what they name and keep what they do not: Stripe adds fields within a version of its API, so an unknown one is
no fault (https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backwards-compatible). The object
inside ``data`` is the application's to say, with as few of its fields as it uses:

    class CheckoutSession(BaseModel):
        id: str
        client_reference_id: str | None = None

    EventType("checkout.session.completed", StripeEvent[CheckoutSession])
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class _Lenient(BaseModel):
    """Keeps the fields it does not know: ``model_extra`` has them, and they are written back."""

    model_config = ConfigDict(extra="allow")


class StripeRequest(_Lenient):
    """The API request that caused an event (https://docs.stripe.com/api/events/object#event_object-request)."""

    id: str | None = None
    """None: Stripe did it by itself, as in a subscription's renewal."""
    idempotency_key: str | None = None


class StripeData(_Lenient, Generic[T]):
    """What an event is about."""

    object: T
    """The object as it was when the event happened, in the shape of the event's ``api_version``."""
    previous_attributes: dict[str, Any] | None = None
    """In ``*.updated`` events: what the changed fields were before; whatever Stripe has there, hence Any."""


class StripeEvent(_Lenient, Generic[T]):
    """A Stripe event, snapshot style (https://docs.stripe.com/api/events/object); ``T`` is the type of its object."""

    id: str
    """The same however often the event is delivered; stored as ``id_externo``."""
    object: Literal["event"] = "event"
    type: str
    created: int
    """Seconds since 1970, by Stripe's clock."""
    data: StripeData[T]
    livemode: bool = False
    api_version: str | None = None
    account: str | None = None
    """The connected account it belongs to, in events that a Connect endpoint gets."""
    pending_webhooks: int = 0
    request: StripeRequest | None = None


class StripeRelatedObject(_Lenient):
    """Where the object of a thin event is to be fetched."""

    id: str
    type: str
    url: str


class StripeThinEvent(_Lenient):
    """A thin event: it names what changed and holds nothing of it (https://docs.stripe.com/api/v2/core/events/object)."""

    id: str
    object: Literal["v2.core.event"] = "v2.core.event"
    type: str
    created: str
    """A moment, as RFC 3339 has it."""
    livemode: bool = False
    context: str | None = None
    """The account it belongs to, if not the endpoint's own."""
    related_object: StripeRelatedObject | None = None
