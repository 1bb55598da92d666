"""Redsys, gateway of most Spanish banks: the form ``Ds_SignatureVersion``, ``Ds_MerchantParameters``, ``Ds_Signature``.

The parameters are base64 of a JSON object, and the HMAC is over that text as it came. Its key is derived from the
shop's secret and the order (``Ds_Order``) inside the parameters, so a secret never signs anything directly:

================  ======================================================  ==========================================
version           derived key                                             HMAC
================  ======================================================  ==========================================
HMAC_SHA256_V1    3DES-CBC of the order, zero padded; secret from base64  SHA-256 keyed by the raw derived bytes
HMAC_SHA512_V1    AES-128-CBC of the order, PKCS#7; first 16 characters   SHA-512 keyed by their base64 text
HMAC_SHA512_V2    the same                                                the same; written without ``=``
================  ======================================================  ==========================================

There is no timestamp and no event id. An operation is identified by the parameters in ``IDENTITY``, not by a hash
of all: they also hold a number that is new in every message (``Ds_Control_...``). The payload of the event is the
decoded parameters. Rules from https://pagosonline.redsys.es/desarrolladores.html and python-redsys 2.1.0, which tried
them against Redsys's own test environment. Needs ``cryptography``.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal
from urllib.parse import urlencode

from cauce.webhooks.asymmetric import aes_cbc, from_base64, triple_des_cbc
from cauce.webhooks.limits import MAX_ID, MAX_TIPO
from cauce.webhooks.payload import JsonValue, Payload, Problem, at, read_form, read_json, without_bom
from cauce.webhooks.provider import DAY, Draft, Found, Provider, is_storable
from cauce.webhooks.request import Headers, WebhookRequest
from cauce.webhooks.secrets import Secret
from cauce.webhooks.signing import first_match, key_of, no_match
from cauce.webhooks.verdict import Reason, Refusal, SignedScope, Verified

Version = Literal["HMAC_SHA256_V1", "HMAC_SHA512_V1", "HMAC_SHA512_V2"]
IDENTITY: Final = (
    "Ds_MerchantCode",
    "Ds_Terminal",
    "Ds_Order",
    "Ds_TransactionType",
    "Ds_Response",
    "Ds_AuthorisationCode",
    "Ds_Amount",
    "Ds_Date",
    "Ds_Hour",
)
"""The parameters that identify an operation. Two partial refunds of one order differ only in the last ones."""
_BLOCK: Final = 16
_MAX_ORDER: Final = 64  # characters; an order has twelve at most


@dataclass(frozen=True, kw_only=True)
class Redsys(Provider):
    """Redsys's online notification. ``tipo`` is ``operacion.<Ds_TransactionType>``: 0 payment, 3 refund..."""

    origen: str = "redsys"
    title: str = "Redsys"
    secret_setting: str = "REDSYS_SECRET_KEY"
    versions: tuple[Version, ...] = ("HMAC_SHA512_V2", "HMAC_SHA512_V1", "HMAC_SHA256_V1")
    """Accepted signature versions; the first is used to sign."""
    retry_horizon: float = DAY
    documentation: ClassVar[str] = "https://pagosonline.redsys.es/desarrolladores-inicio/documentacion-operativa/"

    @property
    def signed(self) -> SignedScope:
        """The parameters, which are the whole payload."""
        return SignedScope(raw_body=True)

    def check(self, request: WebhookRequest, secrets: Sequence[tuple[int, Secret]], now: float) -> Verified:
        """Derive each secret's key for this order, and compare."""
        form = _form(request.body)
        version = next((one for one in self.versions if one == form["Ds_SignatureVersion"]), None)
        if version is None:
            raise Refusal(Reason.WRONG_SCHEME, f"Ds_SignatureVersion is none of {', '.join(self.versions)}")
        parameters = form["Ds_MerchantParameters"]
        order = _order(_parameters(parameters).value)
        given = from_base64(form["Ds_Signature"]) or b""

        def matches(secret: Secret) -> bool:
            return hmac.compare_digest(self._mac(secret, version=version, order=order, parameters=parameters), given)

        index = first_match(secrets, matches)
        if index is None:
            raise no_match("Ds_Signature", secrets, self.secret_setting)
        return Verified(f"redsys-{version}", self.signed, index)

    def make(self, draft: Draft, secret: Secret, now: float) -> WebhookRequest:
        """Make a notification of parameters given as JSON."""
        version = self.versions[0]
        parameters = _encode(draft.body, version)
        order = _order(_parameters(parameters).value)
        mac = self._mac(secret, version=version, order=order, parameters=parameters)
        fields = {
            "Ds_SignatureVersion": version,
            "Ds_MerchantParameters": parameters,
            "Ds_Signature": _encode(mac, version),
        }
        headers = Headers.of({"content-type": "application/x-www-form-urlencoded"})
        return WebhookRequest(urlencode(fields).encode(), headers, draft.url)

    def payloads(self, request: WebhookRequest) -> Sequence[Payload]:
        """Decode the parameters."""
        return (_parameters(_form(request.body)["Ds_MerchantParameters"]),)

    def tipo_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Name the kind of operation."""
        kind = at(value, "Ds_TransactionType") or at(value, "DS_TRANSACTIONTYPE")
        tipo = f"operacion.{kind}"
        return Found(tipo, "body:Ds_TransactionType") if kind is not None and is_storable(tipo, MAX_TIPO) else None

    def id_of(self, request: WebhookRequest, value: JsonValue) -> Found | None:
        """Join the parameters in ``IDENTITY``."""
        text = ":".join(str(at(value, name) or at(value, name.upper()) or "") for name in IDENTITY)
        return Found(text, "body:Ds_Order") if is_storable(text, MAX_ID) else None

    def _mac(self, secret: Secret, *, version: str, order: str, parameters: str) -> bytes:
        """Sign parameters with the key of their order."""
        message = parameters.encode("utf-8", "surrogatepass")
        data = order.encode("utf-8", "surrogatepass")
        if version == "HMAC_SHA256_V1":
            key = key_of(secret, "base64", self.secret_setting)
            derived = triple_des_cbc(key, data + bytes(-len(data) % 8), self.secret_setting)
            return hmac.digest(derived, message, "sha256")
        key = secret.text.strip()[:_BLOCK].ljust(_BLOCK, "0").encode("utf-8", "replace")
        padding = _BLOCK - len(data) % _BLOCK
        derived = aes_cbc(key, data + bytes([padding]) * padding, self.secret_setting)
        return hmac.digest(base64.b64encode(derived), message, "sha512")


def _form(body: bytes) -> dict[str, str]:
    """Read the three fields, from a form or from JSON.

    Raises:
        Refusal: a field is missing, or is no text.
    """
    payload = read_json(body) if without_bom(body).lstrip()[:1] == b"{" else read_form(body)
    fields: dict[str, str] = {}
    for name in ("Ds_SignatureVersion", "Ds_MerchantParameters", "Ds_Signature"):
        text = at(payload.value, name)
        if not isinstance(text, str):
            raise Refusal(Reason.MALFORMED_BODY, f"the body has no {name}, or more than one")
        # A form turns the + of plain base64 into a space, if the sender did not escape it.
        fields[name] = text.replace(" ", "+")
    return fields


def _parameters(text: str) -> Payload:
    """Decode the parameters."""
    raw = from_base64(text)
    return Payload(raw=text.encode(), problem=Problem.NOT_JSON) if raw is None else read_json(raw)


def _order(value: JsonValue) -> str:
    """Return the order in the parameters; Redsys writes its name in two ways.

    Raises:
        Refusal: there is no order, or it is too long.
    """
    order = at(value, "Ds_Order") or at(value, "DS_ORDER")
    if not isinstance(order, str) or len(order) > _MAX_ORDER:
        raise Refusal(Reason.MALFORMED_BODY, "Ds_MerchantParameters is not base64 of a JSON object with Ds_Order")
    return order


def _encode(raw: bytes, version: Version) -> str:
    """Write bytes as a version does."""
    if version == "HMAC_SHA256_V1":
        return base64.b64encode(raw).decode("ascii")
    text = base64.urlsafe_b64encode(raw).decode("ascii")
    return text.rstrip("=") if version == "HMAC_SHA512_V2" else text
