"""What every face does alike, whatever the framework: each test runs on all of them, over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cauce.webhooks import PROVIDERS, Draft, Secret, WebhookRequest
from tests.integration.web.conftest import Delivery, Sign
from tests.integration.web.faces.conftest import Face

STRIPE = "/api/webhooks/stripe"
LOTE = "/api/trabajadores/procesar_lote"
CAP = 200_000
TYPE = "checkout.session.completed"


def deliver(face: Face, delivery: Delivery) -> tuple[int, dict[str, object]]:
    """Post to Stripe's inbox; return the status and the answer."""
    answer = face.request("POST", STRIPE, content=delivery.body, headers=delivery.headers)
    return answer.status_code, answer.json()


def chunks(body: bytes, size: int) -> Iterator[bytes]:
    """Cut a body, so that it is sent without a length."""
    return (body[start : start + size] for start in range(0, len(body), size))


def sign(origen: str, secret: str, event: object, url: str = "") -> WebhookRequest:
    """Sign as a provider does."""
    return PROVIDERS[origen].sign(Draft(json.dumps(event).encode(), url=url), Secret(secret), time.time())


def test_a_delivery_is_stored_and_its_repetition_is_not(face: Face, signed: Sign) -> None:
    """200 with the id of the event, which is in the table as it was sent; then 200 again, saying so."""
    delivery = signed({"id": "evt_stored", "type": TYPE, "note": "ca\u00f1\u00f3n"})
    first, second = deliver(face, delivery), deliver(face, delivery)
    (evento,) = face.query("select * from cauce.eventos where id_externo = 'evt_stored'")
    assert first == (200, {"id": evento["id"], "duplicado": False})
    assert second == (200, {"id": evento["id"], "duplicado": True})
    assert evento["payload"] == json.loads(delivery.body)
    assert evento["cabeceras"]["headers"]["content-type"] == "application/json; charset=utf-8"


def test_answers_are_json(face: Face) -> None:
    """With a type, a length and no other body than that."""
    answer = face.request("GET", "/api/salud")
    assert (answer.status_code, answer.json()["estado"]) == (200, "bien")
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_bad_signature(face: Face, signed: Sign) -> None:
    """400, and nothing stored."""
    before = face.count()
    for attack in (signed(secrets=["whsec_other"]), signed()._replace(headers={}), signed()._replace(body=b"{}")):
        status, answer = deliver(face, attack)
        assert (status, answer["error"]) == (400, "firma_invalida")
    assert face.count() == before


def test_a_signature_that_came_twice(face: Face, signed: Sign) -> None:
    """400: where the server joins what came twice, and where it does not."""
    before = face.count()
    good, stale = signed(), signed(age=400)
    for pair in ((good, stale), (stale, good)):
        headers = [("stripe-signature", one.headers["stripe-signature"]) for one in pair]
        answer = face.request("POST", STRIPE, content=good.body, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "firma_invalida")
    assert face.count() == before


def test_an_unknown_origin(face: Face) -> None:
    """404, whatever the method and the name."""
    for method, name in (
        ("POST", "nobody"),
        ("GET", "nobody"),
        ("POST", "caf%C3%A9"),
        ("POST", "%E2%82%AC"),
        ("PUT", "%FF"),
    ):
        answer = face.request(method, f"/api/webhooks/{name}", content=b"{}")
        assert (answer.status_code, answer.json()["error"]) == (404, "origen_desconocido")


@pytest.mark.parametrize("path", ["/api/webhooks", STRIPE + "/", STRIPE + "/x", "/api/nothing"])
def test_an_address_that_is_none(face: Face, signed: Sign, path: str) -> None:
    """404, from the inbox or from the framework; no redirection, which no sender of webhooks would follow."""
    delivery = signed()
    assert face.request("POST", path, content=delivery.body, headers=delivery.headers).status_code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_post_delivers(face: Face, signed: Sign, method: str) -> None:
    """405 with ``Allow``, even with a good signature; the code is ours, not the framework's."""
    before, delivery = face.count(), signed()
    answer = face.request(method, STRIPE, content=delivery.body, headers=delivery.headers)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.content == b"" if method == "HEAD" else answer.json()["error"] == "metodo_no_permitido"
    assert face.count() == before


def test_a_head_is_answered_without_a_body(face: Face) -> None:
    """Intercom tries an endpoint so; and the next request on the connection is understood."""
    assert face.request("HEAD", "/api/webhooks/intercom").status_code == 200
    answer = face.request("HEAD", "/api/salud")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0
    assert face.request("GET", "/api/salud").status_code == 200


def test_a_long_body(face: Face, signed: Sign) -> None:
    """Exactly the limit is stored, read in several chunks."""
    event = {"id": "evt_long", "type": TYPE, "text": ""}
    delivery = signed({**event, "text": "x" * (CAP - len(json.dumps(event)))})
    assert (len(delivery.body), deliver(face, delivery)[0]) == (CAP, 200)
    assert face.stored("evt_long") == ["evt_long"]


def test_a_body_without_a_length(face: Face, signed: Sign) -> None:
    """Stored where the server takes chunks; 411 where it does not, and not the accusation of a bad signature."""
    delivery = signed({"id": "evt_chunks", "type": TYPE, "text": "x" * 150_000})
    answer = face.request("POST", STRIPE, content=chunks(delivery.body, 10_000), headers=delivery.headers)
    if face.name != "wsgi_on_wsgiref":
        assert (answer.status_code, face.stored("evt_chunks")) == (200, ["evt_chunks"])
    else:
        assert (answer.status_code, answer.json()["error"]) == (411, "longitud_requerida")
        assert face.stored("evt_chunks") == []


def test_a_declared_length_over_the_limit(face: Face) -> None:
    """413 before a byte of the body has come; from Django on ASGI after the whole, which it takes in first."""
    body = b"x" * (CAP + 1) if face.name == "django_on_asgi" else b""
    head = f"POST {{prefix}}{STRIPE} HTTP/1.1\nhost: localhost\nconnection: close\ncontent-length: {CAP + 1}\n"
    answer = face.speak(head, body)
    assert answer.partition(b" ")[2].startswith(b"413 ")
    assert b"cuerpo_demasiado_grande" in answer


def test_chunks_over_the_limit(face: Face) -> None:
    """413, or 411 where chunks are not taken at all."""
    before = face.count()
    head = f"POST {{prefix}}{STRIPE} HTTP/1.1\nhost: localhost\nconnection: close\ntransfer-encoding: chunked\n"
    answer = face.speak(head, b"%x\r\n%s\r\n0\r\n\r\n" % (CAP + 1, b"x" * (CAP + 1)))
    assert answer.partition(b" ")[2].startswith(b"413 " if face.name != "wsgi_on_wsgiref" else b"411 ")
    assert face.count() == before


def test_a_client_that_leaves(face: Face, signed: Sign) -> None:
    """Half a body is forgotten, though a signature of that half may be good; the next delivery is stored."""
    half = signed({"id": "evt_half", "type": TYPE})
    signature = half.headers["stripe-signature"]
    head = f"POST {{prefix}}{STRIPE} HTTP/1.1\nhost: localhost\ncontent-length: 1000\nstripe-signature: {signature}\n"
    answer = face.speak(head, half.body, end=True)  # returns when the server is done with it
    assert not answer.partition(b" ")[2].startswith(b"200")
    assert deliver(face, signed({"id": "evt_after", "type": TYPE}))[0] == 200
    assert face.stored("evt_half", "evt_after") == ["evt_after"]


def test_no_secret_is_no_access(face: Face) -> None:
    """503 for a provider whose secret nobody has configured."""
    answer = face.request("POST", "/api/webhooks/github", content=b"{}")
    assert (answer.status_code, answer.json()["error"]) == (503, "sin_secreto")


def test_procesar_lote(face: Face, signed: Sign) -> None:
    """401 without the bearer's secret, or with two; with it, by GET or POST, the work is done and counted."""
    for name in ("evt_work_1", "evt_work_2"):
        assert deliver(face, signed({"id": name, "type": TYPE}))[0] == 200
    bearer = ("authorization", "Bearer cron secret")
    for headers in ([], [("authorization", "Bearer x")], [bearer, bearer], [bearer, ("authorization", "Bearer x")]):
        answer = face.request("POST", LOTE, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, "no_autorizado")
        assert answer.headers["www-authenticate"] == 'Bearer realm="cauce"'
    first = face.request("GET", LOTE + "?limite=1", headers=[bearer])
    second = face.request("POST", LOTE, headers=[bearer])
    assert [first.status_code, first.json()["procesados"], second.status_code] == [200, 1, 200]
    states = face.query("select distinct estado from cauce.eventos where id_externo ~ '^evt_work'")
    assert states == [{"estado": "procesado"}]
    assert face.request("GET", LOTE + "?limite=0", headers=[bearer]).json()["error"] == "parametro_invalido"


def test_a_handshake(face: Face) -> None:
    """Slack's challenge comes back as text, if it is signed."""
    request = sign("slack", "slack's", {"type": "url_verification", "challenge": "3eZbrw1a"})
    answer = face.request("POST", "/api/webhooks/slack", content=request.body, headers=dict(request.headers))
    assert (answer.status_code, answer.text) == (200, "3eZbrw1a")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_answers_in_the_manner_of_the_provider(face: Face) -> None:
    """Discord wants 401 for a bad signature and 204, without a body, for an event."""
    statuses: list[int] = []
    for private in ("11" * 32, "22" * 32):
        request = sign("discord", private, {"type": 1, "event": {"type": "ENTITLEMENT_CREATE"}})
        answer = face.request("POST", "/api/webhooks/discord", content=request.body, headers=dict(request.headers))
        statuses.append(answer.status_code)
    assert statuses == [204, 401]
    assert face.request("GET", "/api/salud").status_code == 200


def test_the_address_that_is_signed(face: Face) -> None:
    """Scheme, host, prefix, path and query as they were called; forwarded headers say nothing."""
    path = "/api/webhooks/square?a=%20b&c=(d)"
    request = sign("square", "square's", {"event_id": "sq_1", "type": "t"}, face.url + path)
    headers = {**dict(request.headers), "x-forwarded-host": "elsewhere", "x-forwarded-proto": "https"}
    assert face.request("POST", path, content=request.body, headers=headers).status_code == 200
    elsewhere = {**headers, "host": "elsewhere"}
    assert face.request("POST", path, content=request.body, headers=elsewhere).status_code == 400
    assert face.stored("sq_1") == ["sq_1"]


def test_twenty_at_once_are_stored_once(face: Face, signed: Sign) -> None:
    """From twenty threads: one row, one answer that says it is new."""
    delivery = signed({"id": "evt_twenty", "type": TYPE})
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: deliver(face, delivery), range(20)))
    assert {status for status, _ in answers} == {200}
    assert sorted(bool(answer["duplicado"]) for _, answer in answers) == [False] + [True] * 19
    assert face.stored("evt_twenty") == ["evt_twenty"]
