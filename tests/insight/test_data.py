"""Data usage: counted from what records say, whoever wrote them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lezea_mlops.insight import DataUsage


@pytest.mark.parametrize("count", ["3", "NaN", "Infinity", None, [3], {"n": 3}, float("nan"), float("inf")])
def test_a_count_that_is_no_number_counts_nothing(count: Any) -> None:
    """A foreign journal may hold anything there; the samples are counted nevertheless, and so is what follows."""
    usage = DataUsage()
    usage.observe_usage({"sample_ids": ["a", "b"], "count": count, "epoch": 1})
    usage.observe_usage({"sample_ids": ["a"], "count": 1, "epoch": 2})
    figures = usage.as_dict()
    assert (figures["sample_uses"], figures["distinct_samples"], figures["last_epoch"]) == (1, 2, 2)
    assert figures["most_used"] == {"a": 2, "b": 1}


@pytest.mark.parametrize("count", [3, 3.0])
def test_a_count_is_a_whole_number(count: Any) -> None:
    """Also where another language wrote it as 3.0; it can be stored and taken up again."""
    usage, again = DataUsage(), DataUsage()
    usage.observe_usage({"sample_ids": ["a"], "count": count})
    again.restore(json.loads(json.dumps(usage.state())))
    assert again.as_dict() == usage.as_dict()
    assert again.as_dict()["sample_uses"] == 3


@pytest.mark.parametrize("sizes", ["many", 7, [1, 2], None])
def test_sizes_that_are_no_mapping_are_none(sizes: Any) -> None:
    """They cost themselves alone."""
    usage = DataUsage()
    usage.observe_splits({"sizes": sizes})
    assert usage.as_dict()["splits"] == {}
    usage.observe_splits({"sizes": {"train": 7}})
    assert usage.as_dict()["splits"] == {"train": 7}
