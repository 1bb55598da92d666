"""A refused delivery is kept behind every face: where a loop of ours runs in a thread as where the server has one."""

from __future__ import annotations

import psycopg

from cauce.testing import wait_for
from tests.integration.web.conftest import Sign
from tests.integration.web.faces.conftest import Face


def test_a_refused_delivery_is_kept(face: Face, signed: Sign) -> None:
    """With its reason, its bytes and what was found out, soon after the answer."""
    delivery = signed(secrets=["whsec_other"])
    answer = face.request("POST", "/api/webhooks/stripe", content=delivery.body, headers=delivery.headers)
    assert answer.status_code == 400
    with psycopg.connect(face.dsn, autocommit=True) as conn:
        query = "select razon, causa is not null, url from cauce.rechazados where cuerpo = %s"
        row = wait_for(lambda: conn.execute(query, (delivery.body,)).fetchone())
    assert row == ("bad_signature", True, f"{face.url}/api/webhooks/stripe")
