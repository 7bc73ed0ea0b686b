"""What the page on monitoring shows is what the exporter has."""

from __future__ import annotations

import re
from pathlib import Path

from lezea_mlops.sinks.prometheus.families import FAMILIES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"


def test_the_table_of_series_is_that_of_the_exporter() -> None:
    """Every name with its kind, its labels and its text, in the same order, and no other."""
    rows = re.findall(r"^\| `(lezea_\w+)` \| (\w+) \| (.*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    told = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows]
    known = [(name, family.kind, family.labels, family.text) for name, family in FAMILIES.items()]
    assert told == known
