"""``cauce webhook``: try an inbox without the provider, and explain a delivery.

Nothing here uses the database; the commands that do are in ``cauce.cli.rejected``.
"""

from __future__ import annotations

import json as jsonlib
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter
from cyclopts.validators import Number

from cauce.cli import codes, simulator
from cauce.cli.loading import load_provider
from cauce.cli.means import Means, Options
from cauce.cli.secrets import called_at_of, other_secrets, secrets_of, text_of
from cauce.cli.tables import clean, complain
from cauce.database.quarantine import SIGNED
from cauce.webhooks import PROVIDERS, Provider, Secret
from cauce.webhooks.explaining.explain import explain
from cauce.webhooks.explaining.moments import signed_at
from cauce.webhooks.raw import read_request, write_request
from cauce.webhooks.table import duration, signed_of
from cauce.webhooks.trying.keys import has_two_keys, new_keys
from cauce.webhooks.trying.samples import samples_of
from cauce.webhooks.verdict import Verified

if TYPE_CHECKING:
    from cauce.cli.simulator import Plan
    from cauce.webhooks.payload import JsonValue

MAX_COUNT: Final = 100_000
"""Most deliveries of one command."""
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_INBOX: Final = re.compile(r"/api/webhooks/([^/?#]+)")

app = App(
    name="webhook",
    help="Try an inbox without the provider, explain deliveries, and verify refused ones again.",
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
)
for name, summary in (
    ("rejected", "List deliveries that were refused, or explain one."),
    ("reverify", "Verify refused deliveries again after a fix, and store them."),
    ("dismiss", "Delete refused deliveries for good."),
):
    app.command(f"cauce.cli.rejected:{name}", name=name, help=summary)


@app.command(name="list")
def list_(provider: str | None = None, /, *, app_dir: str = ".") -> int:
    """List the providers: the secret's setting, what is signed, and the types that have samples.

    Args:
        provider: Only this one, by its name or as module:name.
        app_dir: Where modules are looked for first.
    """
    try:
        listed = list(PROVIDERS.values()) if provider is None else [load_provider(provider, app_dir)]
    except ValueError as error:
        return complain(str(error))
    for found in listed:
        time_ = f", {duration(found.tolerance)} allowed" if found.signed.timestamp else ""
        print(f"{found}\n  secret   {found.secret_setting}\n  signed   {signed_of(found).replace('`', '')}{time_}")
        print(f"  samples  {', '.join(samples_of(found.origen)) or 'none'}")
    return codes.DONE


@app.command
def secret(provider: str, /, *, app_dir: str = ".") -> int:
    """Make a test secret in the provider's form: the server's setting and, if it differs, the signing key.

    Args:
        provider: The provider's name, as in `cauce webhook list`, or the application's own as module:name.
        app_dir: Where modules are looked for first.
    """
    try:
        found = load_provider(provider, app_dir)
        keys = new_keys(found, time.time())
    except ValueError as error:
        return complain(str(error))
    print(f"{found.secret_setting}={keys.verify}")
    if keys.sign != keys.verify:
        print(f"\nto sign, put this in a file and give it as --secret @FILE:\n{keys.sign}")
    if keys.certificate:
        print(f"\nthe certificate, which PayPal(certificates=...) must return:\n{keys.certificate}")
    return codes.DONE


@app.command
def send(
    provider: str,
    tipo: str,
    /,
    *,
    changes: Annotated[list[str] | None, Parameter(name="--set", negative_iterable=())] = None,
    url: str = "http://127.0.0.1:8000",
    secret: str | None = None,
    id_externo: str = "",
    body: Path | None = None,
    twice: bool = False,
    bad_signature: bool = False,
    age: Annotated[str, Parameter(allow_leading_hyphen=True)] = "0",
    count: Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_COUNT))] = 1,
    concurrency: Annotated[int, Parameter(validator=Number(gte=1, lte=simulator.MAX_CONCURRENCY))] = 10,
    print_: Annotated[bool, Parameter(name="--print")] = False,
    app_dir: str = ".",
) -> int:
    """Sign a delivery as the provider does, and send it; exit code 1 if the answer is not the expected one.

    Args:
        provider: The provider's name, as in `cauce webhook list`, or the application's own as module:name.
        tipo: The event's type, for example checkout.session.completed.
        changes: path=value in the sample, for example data.object.amount_total=4200; can be given several times.
        url: The server, or the inbox's whole address. Schemes that sign it sign CAUCE_PUBLIC_URL instead, if it is set.
        secret: The signing secret; by default the provider's setting. @FILE reads it from a file.
        id_externo: The delivery's id; all deliveries have it, and the same content.
        body: A file that is sent as it is, instead of the sample.
        twice: Send the same bytes a second time.
        bad_signature: Sign with another secret.
        age: How long ago it was signed: 90, 10m, 2h, 1d; -10m is in the future.
        count: How many deliveries.
        concurrency: How many at once.
        print_: Do not send; write the raw HTTP request to standard output.
        app_dir: Where modules are looked for first.
    """
    if body is not None and changes:
        return complain("--set changes the sample, and --body replaces it; give one of the two")
    try:
        found = load_provider(provider, app_dir)
        inbox = simulator.inbox_url(url, found.origen)
        plan = simulator.Plan(
            provider=found,
            tipo=tipo,
            url=inbox,
            public_url=called_at_of(inbox),
            secret=_signing_secret(found, secret),
            body=None if body is None else body.read_bytes(),
            changes=[_change(text) for text in changes or ()],
            id_externo=id_externo,
            age=_age(age),
            bad_signature=bad_signature,
            twice=twice,
        )
        request = plan.request(time.time())  # raises at once if it cannot be made
    except (ValueError, OSError) as error:
        return complain(str(error))
    if print_:
        sys.stdout.buffer.write(write_request(request))
        return codes.DONE
    return _send_one(plan) if count == 1 else _send_many(plan, count, concurrency)


@app.command
def verify(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    options: Options | None = None,
) -> int:
    """Explain a captured HTTP request line by line: what came, what is signed, which secret fits, or why none does.

    Args:
        file: The raw request: first line, headers, an empty line, body. "-" reads standard input.
        options: How to verify it.
    """
    try:
        means = Means.read(options)
        captured = read_request(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
        request = replace(captured.request, url=means.called_at(captured.request.url))
        path = _INBOX.search(request.url)
        found = means.provider or PROVIDERS.get(path[1] if path else "")
        if found is None:
            return complain("its first line names no provider; give --provider, with module:name for your own")
        found = means.trusted(found)
        secrets, others = means.secrets_of(found), other_secrets()
    except (ValueError, OSError) as error:
        return complain(str(error))
    at = signed_at(found, request) if means.at == SIGNED else means.at
    now = time.time() if at is None else float(at)
    explained = explain(found, request, secrets, now, others)
    for label, line in [*explained.lines[:1], *(("note", note) for note in captured.notes), *explained.lines[1:]]:
        print(f"{label:<9} {clean(line, lines=False).plain}")
    return codes.DONE if isinstance(explained.verdict, Verified) else codes.NOT_DONE


def _send_one(plan: Plan) -> int:
    answers = simulator.deliver(plan)
    print(f"POST {plan.url}: {plan.provider.origen} {plan.tipo}")
    for answer in answers:
        print(f"{answer.status} in {answer.seconds * 1000:.0f} ms" if answer.status else answer.problem)
        if answer.body:
            print(clean(answer.text).plain)
    return _judged([fault] if (fault := plan.fault(answers)) else [])


def _send_many(plan: Plan, count: int, concurrency: int) -> int:
    print(f"POST {plan.url}: {count} of {plan.provider.origen} {plan.tipo}, {concurrency} at once")
    report = simulator.deliver_many(plan, count, concurrency)
    for status, number in sorted(report.statuses.items()):
        print(f"{status:<5} {number}")
    print(f"in {report.seconds:.1f} s")
    return _judged(report.faults)


def _judged(faults: list[str]) -> int:
    """Print what was wrong; return the exit code."""
    if not faults:
        return codes.DONE
    many = f"{len(faults)} deliveries went wrong; the first: " if len(faults) > 1 else ""
    print(f"cauce: {many}{clean(faults[0], lines=False).plain}", file=sys.stderr)
    return codes.NOT_DONE


def _signing_secret(provider: Provider, given: str | None) -> Secret:
    """Return the signing secret: the one given, or the one in the server's setting."""
    text = text_of(given)
    if text is None and has_two_keys(provider):
        hint = (
            f"{provider.secret_setting} verifies and cannot sign; `cauce webhook secret {provider.origen}` makes a pair"
        )
        raise ValueError(f"{hint}, the one for --secret")
    if text is not None:
        return Secret(text)
    setting = provider.secret_setting
    held = [one for one in secrets_of(setting) if not one.text.startswith("whpk_")]
    if not held:
        hint = f"`cauce webhook secret {provider.origen}` makes one"
        raise ValueError(f"{setting} is not set: set it, or give --secret; {hint}")
    return next((one for one in held if one.accepted_at(time.time())), held[0])


def _change(text: str) -> tuple[str, JsonValue]:
    """Read path=value; a value that is not JSON is text."""
    path, equals, value = text.partition("=")
    if not (path and equals):
        raise ValueError(f"--set {text}: write path=value, for example data.object.amount_total=4200")
    try:
        return path, jsonlib.loads(value)
    except ValueError:
        return path, value


def _age(text: str) -> float:
    found = re.fullmatch(r"(-?)([0-9]{1,9})([smhd]?)", text)
    if found is None:
        raise ValueError(f"--age {text}: write 90, 90s, 10m, 2h or 1d, with a - before it for the future")
    return float(f"{found[1]}{found[2]}") * _UNITS[found[3]]
