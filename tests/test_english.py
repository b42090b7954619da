"""Rejects phrases that stop a reader: ``HABITS`` has the plain wording for each.

``python tests/test_english.py`` prints every hit with its line.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = (".py", ".md", ".html", ".sh", ".toml")
HABITS = {
    # what is written: what to write
    r"(?<!there )\b(?:is|are|was) no (?!(?:longer|more|one|fewer|less|better)\b)": "is not a",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bbeside\b": "next to, together with",
    r"\bstands? (?:in|there|here|under|alone|at|on)\b": "is in, exists",
    r"\btells of\b|\b(?:is|are|was|be) told\b|\btold of\b": "reports, receives",
    r"\bwhoever\b|\bnobody\b|\bsomebody\b|\beverybody\b": "users, no one, someone",
    r"\bfor ever\b": "indefinitely",
    r"\banew\b": "again",
    r"\bat once\b": "immediately, at the same time",
    r"\bfor good\b": "permanently",
    r"\bleft away\b": "omitted",
    r"\bfares?\b|\bis it well\b": "its state, its health",
    r"\b(?:a|one) (?:line|row|record|event|file|image) a (?:face|frame|folder|file|line)\b": (
        "one ... per ..."
    ),
    r"(?<!systemd\.)\bwants\b": "requires, needs",
    r"\bpictures?\b": "image, frame",
}
PATTERN = re.compile("|".join(f"(?:{habit})" for habit in HABITS), re.IGNORECASE)


def files() -> list[Path]:
    """Every tracked text file."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is not a checkout: there is no list of its files")
    found = (ROOT / name for name in listed.stdout.split("\0") if name.endswith(SUFFIXES))
    return [path for path in found if path.is_file() and path != Path(__file__).resolve()]


def hits(path: Path) -> Iterator[str]:
    """A line for each habit found."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for match in PATTERN.finditer(line):
            found = match.group(0)
            plain = next(new for old, new in HABITS.items() if re.fullmatch(old, found, re.I))
            yield f"{path.relative_to(ROOT)}:{number}: {found!r}; write: {plain}"


def test_the_text_is_plain() -> None:
    checked = files()
    assert checked
    assert not [hit for path in checked for hit in hits(path)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rest is no number", True),
        ("there is no camera", False),
        ("it is no longer open", False),
        ("a line a face", True),
        ("whatever mends it", True),
        ("the file beside it", True),
        ("besides the model", False),
        ("one line per face", False),
    ],
)
def test_a_habit_is_found(text: str, found: bool) -> None:
    assert bool(PATTERN.search(text)) is found


if __name__ == "__main__":
    for file in files():
        for line in hits(file):
            print(line)
