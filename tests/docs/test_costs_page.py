"""What the page on costs shows is true: its names are those of the code, its prices are read, its output is printed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from typer.testing import CliRunner

from lezea_mlops.cli import app
from lezea_mlops.config.rates import Rates, read_rates
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "costs.md").read_text()
NAMES = {field.name for field in fields(Rates)}


def blocks(language: str) -> list[str]:
    """Return the blocks of the page in a language; "" for those in none."""
    return [code for found, code in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
            if found == language]  # fmt: skip


def test_the_table_has_every_price_and_no_other() -> None:
    """Each with its unit."""
    table = PAGE.partition("\n## Prices\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE)
    assert {name for name, _ in rows} == NAMES
    assert all(unit.strip() for _, unit in rows)


def test_every_price_has_its_variable_on_the_page() -> None:
    """Under the name that is read."""
    assert set(re.findall(r"LEZEA_RATE_(\w+)", PAGE)) == {name.upper() for name in NAMES}


def test_the_file_and_the_variables_of_the_page_are_prices(tmp_path: Path) -> None:
    """Variables stand above the file; those of all GPUs replace the names in it."""
    [text] = blocks("yaml")
    file = tmp_path / "rates.yaml"
    file.write_text(text)
    assert read_rates(file, {}).gpu_hour_eur == {"NVIDIA H200": 3.2, "NVIDIA L4": 0.6, "default": 1.0}
    variables = dict(re.findall(r"^export (LEZEA_RATE_\w+)=(\S+)$", PAGE, re.MULTILINE))
    found = read_rates(file, variables)
    assert (found.core_hour_eur, found.gpu_hour_eur, found.storage_months) == (0.05, 2.4, 6.0)


def test_the_program_of_the_page_costs_what_the_page_shows(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Line by line, but for the space at the ends of lines."""
    [program] = [code for code in blocks("python") if 'experiment_id="priced"' in code]
    [shown] = [text for text in blocks("") if text.startswith("priced: ")]
    run_python(program)
    printed = CliRunner().invoke(app, ["costs", "priced", "--top", "2"]).stdout
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()
