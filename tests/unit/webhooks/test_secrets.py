"""Secrets: several in one setting, each with the time in which it counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from cauce.webhooks import PROVIDERS, Draft, Reason, Rejected, Secret, Verdict, Verified
from cauce.webhooks.explaining.diagnose import Inquiry
from cauce.webhooks.explaining.explain import explain
from cauce.webhooks.providers.standard import MIN_KEY
from cauce.webhooks.trying.keys import new_keys
from cauce.webhooks.trying.samples import samples_of

NOW = 1_764_000_000.0
MOMENT = datetime.fromtimestamp(NOW, UTC)
WRITTEN = "2025-11-24T16:00:00Z"
SECOND = timedelta(seconds=1)
PROVIDER = PROVIDERS["stripe"]
DRAFT = Draft(b'{"id":"evt_1","type":"a"}')


def judged(*secrets: Secret, now: float = NOW) -> Verdict:
    """The verdict on a delivery signed with whsec_one at that moment."""
    return PROVIDER.verify(PROVIDER.sign(DRAFT, Secret("whsec_one"), now), secrets, now)


@pytest.mark.parametrize(
    ("setting", "secrets"),
    [
        (None, ()),
        (" , ", ()),
        (" a, b,,", (Secret("a"), Secret("b"))),
        (f"a;until={WRITTEN}", (Secret("a", until=MOMENT),)),
        (f" new ; since = {WRITTEN} , old", (Secret("new", since=MOMENT), Secret("old"))),
        (f"a;since={NOW:.0f};until=2025-11-24T18:00:01+02:00", (Secret("a", MOMENT, MOMENT + SECOND),)),
        (f"a;until={WRITTEN};since=0", (Secret("a", datetime.fromtimestamp(0, UTC), MOMENT),)),
        ("c2Vj+/cmV0LQ==", (Secret("c2Vj+/cmV0LQ=="),)),
        ("v1,whsec_YQ==", (Secret("whsec_YQ=="),)),
        ("v1,whsec_YQ==, v1a, whpk_Yg==;until=5,c", (
            Secret("whsec_YQ=="), Secret("whpk_Yg==", until=datetime.fromtimestamp(5, UTC)), Secret("c"),
        )),
    ],
)  # fmt: skip
def test_a_setting_holds_secrets_and_their_windows(setting: str | None, secrets: tuple[Secret, ...]) -> None:
    """Separated by commas, each with since= and until= behind semicolons; empty parts are none."""
    assert Secret.several(setting) == secrets


@pytest.mark.parametrize("origen", PROVIDERS)
def test_no_secret_of_a_provider_is_taken_for_several_or_for_a_window(origen: str) -> None:
    """Their forms (hex, base64, whsec_ and the like) hold neither commas nor semicolons."""
    text = new_keys(PROVIDERS[origen], NOW).verify
    assert Secret.several(text) == (Secret(text),)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("a;until=tomorrow", "until of secret 1 of 1 is not a time"),
        ("a;until=", "until of secret 1 of 1 is not a time"),
        ("a, b;since=2026-12-01", "since of secret 2 of 2 is not a time: write ISO 8601 with its offset"),
        ("a;until=2026-12-01T00:00:00", "is not a time: write ISO 8601 with its offset from UTC"),
        ("a;until=2026-12-01T00:00:00,5Z", "is not a time"),
        ("a;until=0001-01-01T00:00:00+14:00", "is not a time"),
        ("a;until=1764000000000", "is not a time"),
        ("a;untill=5", "after a ; in secret 1 of 1 there may be"),
        ("a;", "after a ; in secret 1 of 1 there may be"),
        ("a;until=5;until=6", "there may be one since= and one until="),
        (";until=5", "secret 1 of 1 has since= or until=, but no text"),
        ("a;since=6;until=6", "secret 1 of 1: since is not before until"),
    ],
)
def test_a_window_that_cannot_be_read_is_an_error(setting: str, problem: str) -> None:
    """It names the secret by its position; a typo never makes a secret that does not expire."""
    with pytest.raises(ValueError, match=problem):
        Secret.several(setting)


def test_errors_quote_nothing_of_a_secret() -> None:
    """Whatever stands behind a semicolon may be part of one."""
    with pytest.raises(ValueError, match="in code") as raised:
        Secret.several("hush;hushed=hushing")
    assert "hush" not in str(raised.value)


def test_a_window_in_code_needs_moments_that_are_clear() -> None:
    """A datetime without an offset is refused, and a window that never opens."""
    with pytest.raises(ValueError, match="until has no offset from UTC"):
        Secret("a", until=MOMENT.replace(tzinfo=None))
    with pytest.raises(ValueError, match="since is not before until"):
        Secret("a", since=MOMENT, until=MOMENT.astimezone(timezone(timedelta(hours=5))))


def test_a_window_holds_its_first_moment_and_not_its_last() -> None:
    """From since on, and before until."""
    secret = Secret("a", MOMENT, MOMENT + SECOND)
    assert [secret.accepted_at(NOW + offset) for offset in (-0.001, 0, 0.999, 1)] == [False, True, True, False]
    assert [secret.expired_at(NOW + offset) for offset in (0.999, 1)] == [False, True]


def test_the_verdict_names_the_secret_by_its_position_among_all() -> None:
    """Those outside their windows are counted as well, so the stored number fits the setting."""
    old, empty = Secret("whsec_old", until=MOMENT), Secret(" ")
    verdict = judged(old, empty, Secret("whsec_one", since=MOMENT))
    assert isinstance(verdict, Verified)
    assert verdict.secret == 2
    assert verdict.as_json()["secreto"] == 2


@pytest.mark.parametrize(
    ("secrets", "reason", "detail"),
    [
        ([Secret("whsec_one", until=MOMENT)], Reason.EXPIRED_SECRET,
         f"it is signed with the secret in STRIPE_WEBHOOK_SECRET, which expired at {WRITTEN}"),
        ([Secret("whsec_new"), Secret("whsec_one", until=MOMENT)], Reason.EXPIRED_SECRET,
         f"it is signed with secret 2 of 2 in STRIPE_WEBHOOK_SECRET, which expired at {WRITTEN}"),
        ([Secret("whsec_one", since=MOMENT + SECOND)], Reason.EARLY_SECRET,
         "the secret in STRIPE_WEBHOOK_SECRET, which is accepted from 2025-11-24T16:00:01Z on"),
        ([Secret("whsec_new"), Secret("whsec_old", until=MOMENT)], Reason.BAD_SIGNATURE, "the secret in"),
        ([Secret("whsec_old", until=MOMENT)], Reason.EMPTY_SECRET, "has no secret that is accepted now"),
        ([Secret(" ", until=MOMENT)], Reason.EMPTY_SECRET, "STRIPE_WEBHOOK_SECRET has no secret"),
    ],
)  # fmt: skip
def test_a_secret_verifies_nothing_outside_its_window(secrets: list[Secret], reason: Reason, detail: str) -> None:
    """What it signed is refused for a reason of its own; without any secret that counts, the fault is ours."""
    verdict = judged(*secrets)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is reason
    assert detail in verdict.detail
    assert verdict.reason.is_ours == (reason is Reason.EMPTY_SECRET)


@pytest.mark.parametrize("origen", PROVIDERS)
def test_windows_hold_for_every_provider(origen: str) -> None:
    """The same delivery is accepted within the window and refused after it."""
    keys = new_keys(PROVIDERS[origen], NOW)
    provider = keys.trusted_by(PROVIDERS[origen])
    sample = next(iter(samples_of(origen).values()))
    request = provider.sign(sample.draft(provider, "https://a.example/", "0" * 32, NOW), Secret(keys.sign), NOW)
    open_, over = Secret(keys.verify, until=MOMENT + SECOND), Secret(keys.verify, until=MOMENT)
    assert isinstance(provider.verify(request, [open_], NOW), Verified)
    verdict = provider.verify(request, [over], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.EXPIRED_SECRET


def test_a_scheme_of_standard_webhooks_is_not_a_secret() -> None:
    """Supabase shows v1,whsec_...: "v1" alone is base64 of one byte, and who guesses it could sign anything."""
    provider, text = PROVIDERS["supabase"], new_keys(PROVIDERS["supabase"], NOW).verify
    assert Secret.several(f"v1,{text}") == (Secret(text),)
    for guessed in ("v1", "whsec_v1", "A" * (MIN_KEY * 4 // 3)):
        with pytest.raises(ValueError, match="malformed_secret"):
            provider.sign(DRAFT, Secret(guessed), NOW)
    request = provider.sign(DRAFT, Secret(text), NOW)
    assert isinstance(provider.verify(request, [Secret("v1"), Secret(text)], NOW), Verified)
    verdict = provider.verify(request, [Secret("v1")], NOW)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.MALFORMED_SECRET


@pytest.mark.parametrize(
    ("secret", "cause", "todo"),
    [
        (Secret("whsec_one", until=MOMENT - SECOND), "its secret expired 1 s earlier", "end the rotation"),
        (Secret("whsec_one", since=MOMENT + SECOND), "its secret is accepted only 1 s later", "earlier since"),
    ],
)
def test_a_window_that_is_not_open_is_explained(secret: Secret, cause: str, todo: str) -> None:
    """By how much it was missed, and what can be done."""
    request = PROVIDER.sign(DRAFT, Secret("whsec_one"), NOW)
    lines = dict(explain(PROVIDER, request, [Secret("whsec_new"), secret], NOW).lines)
    assert cause in lines["cause"]
    assert todo in lines["to do"]
    assert "answered 400: it is signed with secret 2 of 2" in lines["refused"]


def test_a_delivery_that_is_stale_as_well_is_explained() -> None:
    """An old capture, signed with a secret that has expired since."""
    secrets = [Secret("whsec_one", until=MOMENT)]
    rejected = PROVIDER.verify(request := PROVIDER.sign(DRAFT, Secret("whsec_one"), NOW - 900), secrets, NOW)
    assert isinstance(rejected, Rejected)
    assert "expired 0 s earlier" in Inquiry(PROVIDER, request, secrets, NOW, {}).cause(rejected).found


def test_a_window_that_is_open_is_told_with_the_secret() -> None:
    """Whoever looks at a good delivery sees until when its secret counts."""
    request = PROVIDER.sign(DRAFT, Secret("whsec_one"), NOW)
    secrets = [Secret("whsec_new"), Secret("whsec_one", until=MOMENT + SECOND)]
    lines = dict(explain(PROVIDER, request, secrets, NOW).lines)
    assert lines["secret"].startswith("secret 2 of 2 in STRIPE_WEBHOOK_SECRET matches")
    assert lines["secret"].endswith("it is accepted until 2025-11-24T16:00:01Z")
