"""The documents keep up with the code: every command, option and setting is written down."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from cauce.cli.app import COMMANDS
from cauce.config import Settings
from cauce.look import LOOK_SECONDS
from cauce.webhooks import limits

TOP = Path(__file__).parents[2]
PLACES = {name: place for group in COMMANDS.values() for name, (place, _) in group.items()}


def section_of(command: str) -> str:
    """What docs/cli.md says of a command."""
    found = re.search(
        rf"^### `cauce {command}`$(.*?)(?=^##|\Z)", (TOP / "docs/cli.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/cli.md has no section about cauce {command}"
    return found[1]


@pytest.mark.parametrize("command", PLACES)
def test_every_command_and_option_is_documented(command: str) -> None:
    """Each command has a section, and each of its options stands there."""
    module, _, function = PLACES[command].partition(":")
    options = [
        name.replace("_", "-")
        for name, parameter in inspect.signature(getattr(import_module(module), function)).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert [option for option in options if f"--{option}" not in section_of(command)] == []


def test_every_setting_is_documented_with_its_default() -> None:
    """docs/settings.md has a row for each setting, and the default is the code's."""
    text = (TOP / "docs/settings.md").read_text()
    bare = {"database_url", "cron_secret", "stripe_webhook_secret"}
    for name, setting in Settings.model_fields.items():
        variable = name.upper() if name in bare else f"CAUCE_{name.upper()}"
        row = re.search(rf"^\| `{variable}` \| (.*?) ?\| (.+) \|$", text, re.MULTILINE)
        assert row, f"docs/settings.md has no row for {variable}"
        if isinstance(setting.default, int | float):
            assert row[1].lower() == str(setting.default).removesuffix(".0").lower()


def test_every_limit_of_the_inbox_is_documented() -> None:
    """docs/webhooks.md has each of them in its table, by its name."""
    text = (TOP / "docs/webhooks.md").read_text()
    assert [name for name in vars(limits) if name.startswith("MAX_") and f"`{name}`" not in text] == []


def test_the_limit_of_a_look_is_documented() -> None:
    """docs/cli.md says how long a look may take, by its name."""
    assert f"{LOOK_SECONDS:g} seconds a statement (`LOOK_SECONDS`)" in (TOP / "docs/cli.md").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    """No document links to a file that is not there."""
    documents = [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("examples/**/*.md")]
    broken = [
        f"{document.relative_to(TOP)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_every_document_is_on_the_site() -> None:
    """The navigation of the site names each page of docs/, and the index of decisions each decision."""
    pages = {str(page.relative_to(TOP / "docs")) for page in (TOP / "docs").glob("**/*.md")}
    assert set(re.findall(r'"([\w/-]+\.md)"', (TOP / "zensical.toml").read_text())) == pages
    decisions = {page.removeprefix("adr/") for page in pages if page.startswith("adr/0")}
    assert set(re.findall(r"\]\((\d{4}[\w-]+\.md)\)", (TOP / "docs/adr/index.md").read_text())) == decisions


@pytest.mark.parametrize("decision", sorted((TOP / "docs/adr").glob("0*.md")), ids=lambda decision: decision.stem)
def test_a_decision_has_its_form(decision: Path) -> None:
    """A number and a title, a status, then the text; and the index has the same title."""
    number, title, status = re.match(r"# (\d{4})\. (.+)\n\nStatus: (.+)\n\n", decision.read_text()).groups()  # type: ignore[union-attr] # no match is the failure
    assert decision.name.startswith(number)
    assert re.fullmatch(r"(accepted|superseded by \d{4}), \d{4}-\d{2}\.", status)
    assert f"| [{number}]({decision.name}) | {title} |" in (TOP / "docs/adr/index.md").read_text()
