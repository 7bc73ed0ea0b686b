"""What the documents show is true: their Python examples run, their links lead somewhere, their commands exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def blocks(language: str) -> list[tuple[str, str]]:
    """Return (place, code) of every block in that language."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{document.name}:{line}", match[1]))
    return found


@pytest.mark.parametrize(
    ("place", "code"), blocks("python"), ids=lambda value: value if ".md:" in value else ""
)
def test_python_examples_run_in_an_empty_folder(
    place: str, code: str, run_python: Run, mlflow_store: str
) -> None:
    """A reader who copies an example gets what the document says, and no warning."""
    # An example may end at once; on a busy machine MLflow alone takes its time to be imported.
    done = run_python(code, check=False, LEZEA_CLOSE_TIMEOUT_S="100")
    assert done.returncode == 0, f"{place}: {done.stderr}"
    assert done.stderr == "", place


@pytest.mark.parametrize(
    ("place", "text"), blocks("json"), ids=lambda value: value if ".md:" in value else ""
)
def test_json_examples_are_strict_json(place: str, text: str) -> None:
    """What is shown as a record can be read as one."""
    from lezea_mlops.events import decode_line

    def refuse(token: str) -> None:
        raise AssertionError(f"{place}: {token} is not JSON")

    json.loads(text, parse_constant=refuse)
    assert decode_line(text.strip().encode()).event is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_exist(document: Path) -> None:
    """No document points to a page or a picture that is not there."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_benchmarks_that_are_named_exist() -> None:
    """Every figure in the documents can be made again by the program they name."""
    named = {
        name for document in DOCUMENTS for name in re.findall(r"benchmarks/\w+\.py", document.read_text())
    }
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


def test_settings_in_the_documents_are_those_of_the_code() -> None:
    """The table of settings names every setting, and no other."""
    from dataclasses import fields

    from lezea_mlops.config import Settings

    text = (ROOT / "docs" / "connector.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)` \| `LEZEA_", text, re.MULTILINE))
    assert named == {field.name for field in fields(Settings)}


def test_event_types_in_the_documents_are_those_of_the_code() -> None:
    """The table of types in the format names every type, and no other."""
    from lezea_mlops.events import CLASS_OF_TYPE

    text = (ROOT / "docs" / "journal-format.md").read_text().partition("### Types")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"t"} == set(CLASS_OF_TYPE)
