"""The documents describe what the code does."""

import os
import re
from pathlib import Path

import click
import pytest
import yaml

from queue_eval.cli.main import COMMANDS, EXIT_SIGINT, group
from queue_eval.config.load import load
from queue_eval.core.errors import EXIT_DRAINED, EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_READER_LEFT, QueueEvalError
from queue_eval.limiter.keys import LimiterKeys
from queue_eval.queue.keys import RunKeys
from queue_eval.wiring.judging import metric_problems
from testkit.pages import PAGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name", ["reference/configuration.md", "reference/commands.md", "reference/report.schema.json"]
)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run make pages"


def test_the_readmes_eval_yaml_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "eval.yaml").write_text(text)
    load(tmp_path / "eval.yaml", environment={"JUDGE_API_KEY": "x"}, check_metrics=metric_problems)


def test_every_test_that_a_document_names_exists() -> None:
    """`test_x…` is the beginning of a name, `i07_a…` as well, `test_x.py` a file."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    tests = {name for file in files for name in re.findall(r"def test_(\w+)", file.read_text())}
    for page in (ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        for name, dots in re.findall(r"`test_(\w+)(…?)`", text):
            known = any(test.startswith(name) for test in tests) if dots else name in tests
            assert known, f"{page.name} names test_{name}{dots}, which is no test"
        for name in re.findall(r"\b(test_\w+\.py)\b", text):
            assert name in {file.name for file in files}, f"{page.name} names {name}, which is no file of tests"


def test_no_workflow_gives_a_pull_request_more_than_reading() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = yaml.safe_load(path.read_text())
        assert "pull_request_target" not in workflow[True], path.name  # YAML 1.1 takes `on` for a truth value
        assert workflow["permissions"] == {}, path.name
        granted = [job.get("permissions", {}) for job in workflow["jobs"].values()]
        if "pull_request" in workflow[True]:
            assert all(rights in ({}, {"contents": "read"}) for rights in granted), path.name
            assert "secrets." not in path.read_text(), path.name


def test_whatever_a_party_cannot_do_has_a_test() -> None:
    _, *parties, _ = re.split(r"^## ", (ROOT / "SECURITY.md").read_text(), flags=re.MULTILINE)
    assert len(parties) > 9
    for party in parties:
        _, cannot = party.split("Cannot:\n")
        sentences = re.split(r"^- ", cannot, flags=re.MULTILINE)[1:]
        assert sentences, party
        for sentence in sentences:
            assert "`test_" in sentence, f"{party.splitlines()[0]}: {sentence}"


def test_every_verb_that_a_document_names_exists() -> None:
    named = {
        verb
        for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for verb in re.findall(r"(?:`|^|/)queue-eval ([a-z0-9]+)", page.read_text(), re.MULTILINE)
    }
    assert named <= COMMANDS.keys()


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_help(verb: str) -> None:
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    assert command.help


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "keys.md").read_text()
    limiter = LimiterKeys("any")
    of_the_limiter = [
        key.replace(limiter.state, "qe:limit:{<hash>}")
        for key in (
            limiter.state,
            limiter.processes,
            limiter.lanes,
            limiter.lane("<run>"),
            limiter.fifo("<run>"),
            limiter.grants("<process>"),
            limiter.timeline,
        )
    ]
    for key in (*RunKeys("<run>").of_the_run, *of_the_limiter):
        assert f"`{key}`" in text, key


def test_links_between_documents_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(), re.MULTILINE):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_event_of_the_logs_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "log-events.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "queue_eval").rglob("*.py"))
    logged = set(re.findall(r'"event": "(\w+)"', code))
    rows = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)[1:]
    documented = {event for row in rows for event in re.findall(r"`(\w+)`", row)}
    assert documented == logged - {"error"}


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "reference" / "exit-codes.md").read_text(), re.MULTILINE)
    errors: list[type[QueueEvalError]] = [QueueEvalError, *_below(QueueEvalError)]
    known = {error.exit_code for error in errors} | {EXIT_DRAINED, EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_READER_LEFT, EXIT_SIGINT, os.EX_OSERR}  # fmt: skip
    assert {int(row) for row in rows} == known


def _below(error: type[QueueEvalError]) -> list[type[QueueEvalError]]:
    return [one for child in error.__subclasses__() for one in (child, *_below(child))]


def test_the_site_has_every_page_once() -> None:
    nav = re.findall(r'= "([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text())
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(nav) == sorted(pages)


def test_every_option_that_a_document_gives_a_command_exists() -> None:
    wrong = []
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for words in re.findall(
            r"(?:^|[`/(]|-- )queue-eval ((?:k8s )?[a-z]+[^`|#\n;&]*)", page.read_text(), re.MULTILINE
        ):
            name, *rest = words.split()
            command = group.get_command(click.Context(group), name)
            if isinstance(command, click.Group) and rest:
                command = command.get_command(click.Context(command), rest[0])
            known = {option for param in getattr(command, "params", ()) for option in param.opts} | {"--help"}
            given = {word.partition("=")[0] for word in rest if word.startswith("--")}
            wrong += [f"{page.name}: {words}" for option in given if option.strip(".,):\"'") not in known]
    assert wrong == []


def test_every_page_that_anything_names_is_there() -> None:
    kinds = ("*.py", "*.lua", "*.yaml", "*.yml", "*.toml", "*.md", "Makefile", "Dockerfile", "run")
    roots = ("queue_eval", "tests", "testkit", "loadtest", "k8s", "examples", "docker", "docs", ".ci", ".github")
    files = [path for root in roots for kind in kinds for path in (ROOT / root).rglob(kind)]
    files += [ROOT / name for name in ("Makefile", "README.md", "SECURITY.md", "CONTRIBUTING.md", "pyproject.toml")]
    named = {page for path in files for page in re.findall(r"\bdocs/[\w/-]+\.(?:md|acl|svg)\b", path.read_text())}
    assert sorted(page for page in named if not (ROOT / page).exists()) == []
