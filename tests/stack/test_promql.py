"""What a question to Prometheus names is read from it, so that a name which nobody makes is found without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.stack.promql import label_names, selectors, series_names, unknown_parts

KNOWN = {
    "lezea_delivery_up": frozenset({"sink"}),
    "lezea_run_info": frozenset({"host"}),
    "up": frozenset[str](),
}
NAMES = st.from_regex(r"lezea_[a-z]{3,8}(_total)?", fullmatch=True)
LABELS = st.from_regex(r"label_[a-z]{2,6}", fullmatch=True)


@pytest.mark.parametrize(
    ("expr", "names", "labels"),
    [
        ("up", {"up"}, set()),
        ('sum by (sink) (rate(a_total{run="$run", name=~"(.*/)?x y"}[$__rate_interval]))', {"a_total"},
         {"sink", "run", "name"}),
        ("time() - max by (run) (a_seconds) > 1.5e3 and on (run) b == 1", {"a_seconds", "b"}, {"run"}),
        ("a / 3.6e6 + 2^30 * (b offset 5m)", {"a", "b"}, set()),
        ("a * on (run) group_left (host) c unless ignoring (job) d", {"a", "c", "d"}, {"run", "host", "job"}),
        ('x:y:z or 2 * ALERTS{alertstate="firing"}', {"x:y:z", "ALERTS"}, {"alertstate"}),
        ('topk(10, max_over_time(a{text="by (no) {label=\\"}"}[1d:1m]))', {"a"}, {"text"}),
    ],
)  # fmt: skip
def test_series_and_labels_are_told_apart_from_all_else(expr: str, names: set[str], labels: set[str]) -> None:
    """Functions, keywords, numbers, durations and texts are neither."""
    assert series_names(expr) == names
    assert label_names(expr) == labels


@given(st.lists(NAMES, min_size=1, max_size=4), st.lists(LABELS, min_size=1, max_size=3))
def test_names_that_were_put_in_come_out(names: list[str], labels: list[str]) -> None:
    """Whatever they are called."""
    matchers = ", ".join(f'{label}="{name}"' for label, name in zip(labels, names, strict=False))
    expr = " + ".join(f"sum by ({', '.join(labels)}) (rate({name}{{{matchers}}}[5m]))" for name in names)
    assert series_names(expr) == set(names)
    assert label_names(expr) == set(labels)
    assert {text.partition("{")[0] for text in selectors(expr)} == set(names)


def test_a_question_for_something_unknown_is_found() -> None:
    """A misspelled series, a misspelled label, a label of another series, and no series at all."""
    assert unknown_parts("max by (sink, run) (lezea_delivery_up)", KNOWN) == []
    assert unknown_parts("lezea_delivery_upp", KNOWN) == ["nothing makes the series lezea_delivery_upp"]
    assert unknown_parts("max by (sinc) (lezea_delivery_up)", KNOWN) == ["no series in it has the label sinc"]
    assert unknown_parts('lezea_delivery_up{host="x"}', KNOWN) == ["no series in it has the label host"]
    assert unknown_parts("1 + 1", KNOWN) == ["it asks for no series"]
