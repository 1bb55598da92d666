"""Payload types for Stripe: the payload of a Stripe event is the whole Stripe event, as Stripe sent it.

The types keep fields that they do not declare, because Stripe adds fields within a version of its API
(https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backwards-compatible). The application
declares the type of the object inside ``data``, with the fields that it uses:

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
    """A model that keeps undeclared fields: they are in ``model_extra`` and are written back."""

    model_config = ConfigDict(extra="allow")


class StripeRequest(_Lenient):
    """The API request that caused an event (https://docs.stripe.com/api/events/object#event_object-request)."""

    id: str | None = None
    """The request's id; None if Stripe acted by itself, as in a subscription's renewal."""
    idempotency_key: str | None = None
    """The idempotency key of the request, if it had one."""


class StripeData(_Lenient, Generic[T]):
    """What an event is about."""

    object: T
    """The object as it was when the event happened, in the format of the event's ``api_version``."""
    previous_attributes: dict[str, Any] | None = None
    """In ``*.updated`` events: the previous values of the changed fields."""


class StripeEvent(_Lenient, Generic[T]):
    """A Stripe event, snapshot style (https://docs.stripe.com/api/events/object); ``T`` is the type of its object."""

    id: str
    """The event's id, the same in every delivery of the event; stored as ``id_externo``."""
    object: Literal["event"] = "event"
    """Always ``event``."""
    type: str
    """The event's name, such as ``checkout.session.completed``."""
    created: int
    """Seconds since 1970, by Stripe's clock."""
    data: StripeData[T]
    """What the event is about."""
    livemode: bool = False
    """False in test mode."""
    api_version: str | None = None
    """The version of Stripe's API in which ``data`` is written."""
    account: str | None = None
    """The connected account that the event belongs to, if a Connect endpoint received it."""
    pending_webhooks: int = 0
    """Deliveries of the event that have not succeeded yet."""
    request: StripeRequest | None = None
    """The API request that caused the event, if one did."""


class StripeRelatedObject(_Lenient):
    """Where to fetch the object of a thin event."""

    id: str
    """The object's id."""
    type: str
    """The object's type, such as ``v1.billing.meter``."""
    url: str
    """The path of the object in Stripe's API."""


class StripeThinEvent(_Lenient):
    """A thin event: it names the changed object but does not contain it.

    https://docs.stripe.com/api/v2/core/events/object
    """

    id: str
    """The event's id, the same in every delivery of the event; stored as ``id_externo``."""
    object: Literal["v2.core.event"] = "v2.core.event"
    """Always ``v2.core.event``."""
    type: str
    """The event's name, such as ``v1.billing.meter.error_report_triggered``."""
    created: str
    """When the event was created (RFC 3339)."""
    livemode: bool = False
    """False in test mode."""
    context: str | None = None
    """The account that the event belongs to, if it is not the endpoint's own."""
    related_object: StripeRelatedObject | None = None
    """Where to fetch the changed object."""
