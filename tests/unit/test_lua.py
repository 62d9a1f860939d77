"""Redis finds an unknown name in a script only when it comes to it: on a path that may be rare."""

import re
from pathlib import Path

import pytest

from queue_eval.limiter.sync_script import source
from queue_eval.queue import scripts

QUEUE = Path(scripts.__file__).parent / "lua"
LANGUAGE = frozenset(
    re.findall(
        r"\w+",
        """and break do else elseif end false for function if in local nil not or repeat return then true until while""",
    )
)
GIVEN = frozenset(
    re.findall(
        r"\w+",
        """ARGV KEYS cjson error ipairs math next pairs pcall redis string table tonumber tostring type unpack""",
    )
)
_SILENT = re.compile(r"--[^\n]*|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")


def unknown(lua: str) -> set[str]:
    """Names that a script uses and neither declares nor is given. A name counts as declared in all of it."""
    code = _SILENT.sub("''", lua)
    declared = {name for names in re.findall(r"\blocal ([\w, ]+)", code) for name in re.findall(r"\w+", names)}
    declared |= set(re.findall(r"\bfunction (\w+)", code))
    declared |= {name for names in re.findall(r"\bfunction\b[^(\n]*\(([^)]*)\)", code) for name in re.findall(r"\w+", names)}  # fmt: skip
    declared |= {name for names in re.findall(r"\bfor ([\w, ]+?) ?(?:=|in\b)", code) for name in re.findall(r"\w+", names)}  # fmt: skip
    fields = set(re.findall(r"[{,]\s*(\w+) = ", code))
    used = set(re.findall(r"(?<![\w.:])([A-Za-z_]\w*)", code))
    return used - LANGUAGE - GIVEN - declared - fields


def whole(name: str) -> str:
    return "\n".join((QUEUE / f"{part}.lua").read_text() for part in ("clock", "prelude", name))


@pytest.mark.parametrize("name", sorted(path.stem for path in QUEUE.glob("*.lua") if path.stem not in ("clock", "prelude")))  # fmt: skip
def test_a_script_of_the_queue_uses_no_unknown_name(name: str) -> None:
    assert unknown(whole(name)) == set()


@pytest.mark.parametrize("parts", [("clock", "limits", "in_flight", "sync"), ("clock", "tune")])
def test_a_script_of_the_limiter_uses_no_unknown_name(parts: tuple[str, ...]) -> None:
    assert unknown(source(*parts)) == set()


def test_an_unknown_name_is_found_wherever_it_stands() -> None:
    assert unknown("local a = 1\nif a > MOST then return later(a) end") == {"MOST", "later"}
    assert unknown("-- MOST\nlocal a = {most = 1}\nreturn a.most .. 'MOST'") == set()
    assert unknown(whole("claim").replace("QUARANTINE_AFTER then", "SUSPECT_AFTER then")) == {"SUSPECT_AFTER"}
