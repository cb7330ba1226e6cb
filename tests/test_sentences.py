"""Every refusal is one sentence: what, its value, what was expected, and what to do."""

import ast
import re
from pathlib import Path

import pytest

import giblet

PACKAGE = Path(giblet.__file__).parent
REFUSALS = {
    "ValueError",
    "TypeError",
    "FileNotFoundError",
    "OSError",
    "PermissionError",
    "ImportError",
    "MemoryError",
    "TrainingError",
}
VALUE = "{}"  # where a sentence names a value
# 'kind is 'x', expected one of a, b.': to give one of what is expected is what to do.
OF_AN_ARGUMENT = re.compile(r".+ (is|are|has|have|holds) .*\{\}.*, expected .+\.", re.DOTALL)
WITH_REMEDY = re.compile(r"(?P<fault>.+?): (?P<remedy>.+)\.", re.DOTALL)
# What is absent has no value to name.
ABSENT = re.compile(
    r"\b(no|not|nothing|needs?|without|missing|mean|elsewhere|one process|neither)\b"
)
# Why a file cannot be read, which the reader of that kind of file puts into its sentence.
REASON = re.compile(r"it(s)? .*[^.]", re.DOTALL)


def message(node: ast.AST) -> str | None:
    """A literal message with its values as '{}'; None where it is computed elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else VALUE for part in node.values
        )
    return None


def refusals() -> dict[str, str]:
    """The literal message of every refusal of the package, by its place."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            name = getattr(node.exc.func, "id", "")
            arguments = node.exc.args  # two are the number and the reason of an error of the system
            text = message(arguments[0]) if len(arguments) == 1 else None
            if name in REFUSALS and text is not None:
                found[f"{file.relative_to(PACKAGE)}:{node.lineno}"] = text
    return found


def fault_of(text: str) -> str | None:
    """What a refusal lacks; None where it is whole."""
    if REASON.fullmatch(text):
        return None
    if not text.endswith("."):
        return "no full stop"
    if re.search(r"[.!?] [A-Z]", text):
        return "more than one sentence"
    if OF_AN_ARGUMENT.fullmatch(text):
        return None
    parts = WITH_REMEDY.fullmatch(text)
    if parts is None:
        return "says neither what to do nor what an argument may be"
    if VALUE not in text and not ABSENT.search(text):
        return "names no value"
    return None


def test_every_refusal_is_a_whole_sentence():
    found = refusals()
    assert len(found) > 150
    faults = {place: (fault_of(text), text) for place, text in found.items() if fault_of(text)}
    assert faults == {}


@pytest.mark.parametrize(
    "text",
    [
        "kind is {}.",
        "{} is broken",
        "{} cannot be read.",
        "the film is too short: cut it",
        "{} is broken: mend it. Then go on.",
        "the fractions are wrong, expected others.",
    ],
)
def test_the_check_can_fail(text):
    assert fault_of(text) is not None
