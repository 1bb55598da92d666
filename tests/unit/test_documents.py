"""The documents keep up with the code: every command, option and setting is written down."""

from __future__ import annotations

import inspect
import re
import tomllib
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

from cauce import arguments
from cauce.cli.app import COMMANDS
from cauce.config import Settings
from cauce.database.look import LOOK_SECONDS
from cauce.publishing import links
from cauce.webhooks import limits

TOP = Path(__file__).parents[2]
TRANSLATED = {
    "first-steps": "primeros-pasos",
    "publishing": "publicar",
    "sqlalchemy": "con-sqlalchemy",
    "django": "con-django",
    "asyncpg": "con-asyncpg",
    "handlers": "manejadores",
    "groups": "grupos",
    "changing": "cambiar",
    "testing": "pruebas",
    "deploying": "desplegar",
    "monitoring": "vigilar",
    "sql": "sql",
    "comparisons": "comparar",
}
SETTINGS_OF_SESSIONS = {
    "cauce.timbre", "cauce.asiento", "cauce.comprobada", "cauce.causa", "cauce.correlacion", "cauce.ultimo_hijo",
}  # fmt: skip
"""Settings of PostgreSQL's sessions, which are in no catalog."""
UNSPOKEN = re.compile(
    r"\b(?:anew|whence|thence|hence|thereby|lest|likewise|hitherto|in vain|is no more|nobody else's|one's own|be it"
    r"|for ever|mend(?:s|ed|ing)?|says? whose|shall"
    r"|save (?:one|by|in|for|that|where))\b",
    re.IGNORECASE,
)
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


@pytest.mark.parametrize("page", ["guides/publishing.md", "es/guias/publicar.md"])
def test_the_table_of_libraries_has_whatever_publishes(page: str) -> None:
    """The types that publishing recognizes and those in the table are the same, library by library."""
    rows = re.findall(r"^\| ([\w ]+) \| (`.*?) \| COPY \|", (TOP / "docs" / page).read_text(), re.MULTILINE)
    told = {(row[0].split()[0].lower(), name) for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    known = {(name.split(".")[0], name.split(".")[-1]) for name in links.RECOGNIZED}
    assert told == known | {("sqlmodel", "Session"), ("sqlmodel", "AsyncSession")}, "SQLModel's are SQLAlchemy's"


def test_the_limit_of_a_look_is_documented() -> None:
    """docs/cli.md says how long a look may take, by its name."""
    assert f"{LOOK_SECONDS:g} seconds a statement (`LOOK_SECONDS`)" in (TOP / "docs/cli.md").read_text()


def documents() -> list[Path]:
    """Every document of the project, each once, but for the history of changes."""
    found = [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("examples/**/*.md")]
    return sorted(page for page in found if not page.is_symlink() and page.name != "CHANGELOG.md")


def is_there(name: str) -> bool:
    """Whether the package has such a thing: a module, or what a module holds; or the database does."""
    _, *parts = name.split(".")
    if len(parts) == 1 and parts[0] in words_of_the_database():
        return True
    for cut in range(len(parts), -1, -1):
        try:
            place: object = import_module(".".join(["cauce", *parts[:cut]]))
        except ImportError:
            continue
        return reduce(lambda place, part: getattr(place, part, None), parts[cut:], place) is not None
    return False


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(TOP)))
def test_what_documents_name_is_there(page: Path) -> None:
    """Files of the project by their path, and whatever is called `cauce.something`: a module, an object, a table."""
    text = page.read_text()
    places = [TOP, TOP / "src", TOP / "src/cauce", page.parent]
    files = re.findall(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|sql|md|toml))`", text)
    assert [name for name in files if not any((place / name).exists() for place in places)] == []
    names = set(re.findall(r"`(cauce(?:\.[a-z_]\w*)+)(?:\([^`]*)?`", text)) - SETTINGS_OF_SESSIONS
    assert sorted(name for name in names if not is_there(name)) == []


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(TOP)))
def test_documents_are_written_as_people_speak(page: Path) -> None:
    """No word that a colleague would not say aloud."""
    assert UNSPOKEN.findall(page.read_text()) == []


@pytest.mark.parametrize("site", ["zensical.toml", "zensical.es.toml"])
def test_the_site_loads_nothing_from_other_servers(site: str) -> None:
    """No font, and the shim by which the search works in a folder is a file of its own; the theme would fetch both."""
    project = tomllib.loads((TOP / site).read_text())["project"]
    assert project["theme"]["font"] is False
    assert [path.split("/")[-1] for path in project["extra"]["polyfills"]] == ["iframe-worker.js"]
    own = [*project["extra"]["polyfills"], *project["extra_css"]]
    assert [path for path in own if not (TOP / project["docs_dir"] / path).is_file()] == []


def test_links_between_documents_lead_somewhere() -> None:
    """No document links to a file that is not there, nor the Spanish site to a page that the English one lacks."""
    broken = [
        f"{document.relative_to(TOP)}: {target}"
        for document in documents()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
        if not (document.parent / target.replace(".html", ".md")).exists()
    ]
    assert broken == []


def test_a_link_out_of_the_spanish_site_names_the_built_page() -> None:
    """What is not translated is a page of another build: a link to its source would lead nowhere there."""
    outside = [
        f"{page.relative_to(TOP)}: {target}"
        for page in TOP.glob("docs/es/**/*.md")
        for target in re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).resolve().is_relative_to(TOP / "docs/es")
    ]
    assert outside == []


def named_by(site: str) -> set[str]:
    """The pages in the navigation of a site."""
    return set(re.findall(r'"([\w/-]+\.md)"', (TOP / site).read_text()))


def test_every_document_is_on_the_site() -> None:
    """The navigation of the site names each page of docs/, and the index of decisions each decision."""
    everything = {str(page.relative_to(TOP / "docs")) for page in (TOP / "docs").glob("**/*.md")}
    spanish = {page for page in everything if page.startswith("es/")}
    pages = everything - spanish
    assert named_by("zensical.toml") == pages
    assert {f"es/{page}" for page in named_by("zensical.es.toml")} == spanish
    decisions = {page.removeprefix("adr/") for page in pages if page.startswith("adr/0")}
    assert set(re.findall(r"\]\((\d{4}[\w-]+\.md)\)", (TOP / "docs/adr/index.md").read_text())) == decisions


@pytest.mark.parametrize("decision", sorted((TOP / "docs/adr").glob("0*.md")), ids=lambda decision: decision.stem)
def test_a_decision_has_its_form(decision: Path) -> None:
    """A number and a title, a status, then the text; and the index has the same title."""
    number, title, status = re.match(r"# (\d{4})\. (.+)\n\nStatus: (.+)\n\n", decision.read_text()).groups()  # type: ignore[union-attr] # no match is the failure
    assert decision.name.startswith(number)
    assert re.fullmatch(r"(accepted|superseded by \d{4}), \d{4}-\d{2}\.", status)
    assert f"| [{number}]({decision.name}) | {title} |" in (TOP / "docs/adr/index.md").read_text()


@pytest.mark.parametrize(("english", "spanish"), TRANSLATED.items())
def test_a_translated_guide_has_the_same_code(english: str, spanish: str) -> None:
    """The tests run the code of the English guides, so that of the Spanish ones must be the same."""
    ours, theirs = ((TOP / "docs" / page).read_text() for page in (f"guides/{english}.md", f"es/guias/{spanish}.md"))
    code = re.compile(r"^```\w+\n.*?^```", re.MULTILINE | re.DOTALL)
    assert code.findall(theirs) == code.findall(ours)


def test_every_guide_is_translated() -> None:
    """No guide is in one language only."""
    assert {guide.stem for guide in (TOP / "docs/guides").glob("*.md")} == set(TRANSLATED)
    assert {guide.stem for guide in (TOP / "docs/es/guias").glob("*.md")} == set(TRANSLATED.values())


def test_every_document_that_the_code_points_to_is_there() -> None:
    """`cauce docs NAME` in an error or a help text names a page, and no text names a path that a wheel lacks."""
    names = {page.stem for page in (TOP / "docs").glob("**/*.md")}
    guides = {arguments.CHANGING, arguments.PUBLISHING, arguments.HANDLERS, arguments.FIRST_STEPS, arguments.DEPLOYING}
    for source in (TOP / "src").glob("**/*.py"):
        guides |= set(re.findall(r"cauce docs ([a-z-]+)[^a-z-]", source.read_text()))
    assert guides - names == {"lists"}, "what `cauce docs` itself says"
    told = [line for source in (TOP / "src/cauce/cli").glob("*.py") for line in source.read_text().splitlines()
            if re.search(r"[\"'].*docs/\w+\.md", line) and not line.startswith('"""')]  # fmt: skip
    assert told == []


def words_of_the_database() -> set[str]:
    """The names in the schema, but for the variables of functions, and the outcomes that a report may have."""
    schema = (TOP / "tests/integration/schema.sql").read_text()
    words = set(re.findall(r"CREATE (?:TABLE|VIEW|FUNCTION|TYPE|DOMAIN|SEQUENCE) cauce\.(\w+)", schema))
    for columns in re.findall(r"CREATE T(?:ABLE|YPE) cauce\.\w+ (?:AS )?\((.*?)^\)", schema, re.MULTILINE | re.DOTALL):
        words |= set(re.findall(r"^\s+([a-z]\w*) ", columns, re.MULTILINE))
    for columns in re.findall(r"CREATE VIEW (.*?);", schema, re.DOTALL):
        words |= set(re.findall(r" AS ([a-z]\w+),?$", columns, re.MULTILINE))
    parameters_of = r"(?:CREATE FUNCTION cauce\.\w+|RETURNS TABLE)\((.*?)\)(?: RETURNS|$)"
    for parameters in re.findall(parameters_of, schema, re.MULTILINE):
        words |= set(re.findall(r"(?:^|, )(?:INOUT |OUT )?(\w+) ", parameters))
    for values in re.findall(r"AS ENUM \((.*?)\)", schema, re.DOTALL):
        words |= set(re.findall(r"'(\w+)'", values))
    settling = (TOP / "src/cauce/sql/migrations/0005_settle.sql").read_text()
    (outcomes,) = re.findall(r"i\.resultado not in \((.*?)\)", settling)
    return words | set(re.findall(r"'(\w+)'", outcomes))


def test_the_glossary_has_every_word_of_the_database() -> None:
    """Each table, column, function, parameter, state and outcome stands in its Spanish column."""
    rows = re.findall(r"^\|(.*?)\|", (TOP / "docs/glosario.md").read_text(), re.MULTILINE)
    assert words_of_the_database() - set(re.findall(r"`(\w+)`", "".join(rows))) == set()


def test_the_wheel_brings_the_documents() -> None:
    """Both archives are told to hold them."""
    build = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["force-include"]["docs"] == "cauce/docs"
    assert "/docs" in build["sdist"]["include"]
