"""The table of the providers in docs/webhooks.md: ``python -m cauce.webhooks.table docs/webhooks.md`` rewrites it.

Ids and types are looked up in a sample delivery that is signed, verified and described, so a provider's overrides show.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cauce.webhooks.provider import DAY, WHOLE_BODY, Found, Outcome, Provider, text_at
from cauce.webhooks.registry import PROVIDERS
from cauce.webhooks.secrets import Secret
from cauce.webhooks.trying.keys import new_keys
from cauce.webhooks.trying.samples import samples_of
from cauce.webhooks.verdict import Verified

BEGIN: Final = "<!-- providers: made by python -m cauce.webhooks.table docs/webhooks.md -->"
END: Final = "<!-- end of providers -->"
DEFAULTS: Final = {Outcome.STORED: 200, Outcome.DUPLICATE: 200, Outcome.REJECTED: 400, Outcome.UNAVAILABLE: 503}
"""What the HTTP layer answers where a provider says nothing."""
_UNIQUE: Final = "0123456789abcdef" * 2
_NOW: Final = 1_764_000_000.0


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """One provider, in words."""

    title: str
    origen: str
    setting: str
    signed: str
    id_externo: str
    tipo: str
    answers: str
    waits: str
    horizon: str
    tolerance: str
    documentation: str


def row_of(provider: Provider) -> ProviderRow:
    """Describe a provider by what it does with a sample delivery."""
    id_externo, tipo = _places(provider)
    return ProviderRow(
        title=provider.title or provider.origen,
        origen=provider.origen,
        setting=provider.secret_setting,
        signed=signed_of(provider),
        id_externo=id_externo,
        tipo=tipo,
        answers=" / ".join(str(status_of(provider, one)) for one in (Outcome.STORED, Outcome.REJECTED)),
        waits=f"{provider.answer_within:.0f} s",
        horizon=duration(provider.retry_horizon),
        tolerance=duration(provider.tolerance) if provider.signed.timestamp else "",
        documentation=provider.documentation,
    )


def signed_of(provider: Provider) -> str:
    """Say what a provider signs."""
    words = {"raw_body": "body", "timestamp": "time", "url": "URL", "crc32": "CRC-32 of the body"}
    return ", ".join(words.get(name, f"`{name}`") for name in provider.signed.names()) or "nothing"


def status_of(provider: Provider, outcome: Outcome) -> int:
    """Return the status that a provider is answered."""
    answer = provider.respond(outcome)
    return answer.status if answer else DEFAULTS[outcome]


def duration(seconds: float) -> str:
    """Write a duration in the largest unit that fits."""
    for unit, length in (("d", DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def table() -> str:
    """Return the table of all providers as Markdown."""
    head = (
        "| provider | `origen` | secret's setting | signed | id | type"
        " | good / refused | waits | repeats for | tolerance |"
    )
    return "\n".join([head, "|---" * 10 + "|", *_lines()])


def renewed(document: str) -> str:
    """Return a document with the current table between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document needs the lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n{table()}\n{end}{after}"


def _lines() -> Iterator[str]:
    for provider in PROVIDERS.values():
        row = row_of(provider)
        cells = (
            f"[{row.title}]({row.documentation})", f"`{row.origen}`", f"`{row.setting}`", row.signed, row.id_externo,
            row.tipo, row.answers, row.waits, row.horizon, row.tolerance,
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _place(provider: Provider, found: Found, there: str | None) -> str:
    """Describe a place: it holds the whole text or a part of it, or the text is a hash."""
    mark = "" if provider.signed.covers(found.place) else " (unsigned)"
    if found.text.startswith("sha256:"):
        return "hash of the body" if found.place == WHOLE_BODY else f"hash of the body and `{found.place}`{mark}"
    return f"`{found.place}`{'' if there == found.text else ' and more'}{mark}"


def _places(provider: Provider) -> tuple[str, str]:
    """Say where the id and the type of the provider's first sample are found."""
    keys = new_keys(provider, _NOW)
    provider = keys.trusted_by(provider)
    sample = next(iter(samples_of(provider.origen).values()))
    request = provider.sign(sample.draft(provider, "https://example.com/", _UNIQUE, _NOW), Secret(keys.sign), _NOW)
    verdict = provider.verify(request, [Secret(keys.verify)], _NOW)
    payload = next(iter(provider.payloads(request)))
    tipo = provider.tipo_of(request, payload.value)
    if not isinstance(verdict, Verified) or tipo is None:
        raise ValueError(f"the sample of {provider.origen} is not good: {verdict}")
    id_externo = provider.id_of(request, payload.value) or provider.hash_of(request, payload)
    there = [text_at(found.place, request, payload.value) for found in (id_externo, tipo)]
    return _place(provider, id_externo, there[0]), _place(provider, tipo, there[1])


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(renewed(file.read_text("utf-8")), "utf-8")
