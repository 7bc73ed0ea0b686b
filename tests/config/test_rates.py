"""Prices: from a file, the environment above it, arguments above both; a mistake says where it stands."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.accounting import Accounts
from lezea_mlops.config.rates import Rates, read_rates
from lezea_mlops.errors import ConfigurationError

EXAMPLE = Path(__file__).resolve().parents[2] / "configs" / "rates.yaml"
NAMES = [field.name for field in fields(Rates)]


def written(tmp_path: Path, text: str) -> Path:
    """Return a file of rates with this text."""
    file = tmp_path / "rates.yaml"
    file.write_text(text)
    return file


def test_without_anything_nothing_has_a_price() -> None:
    """Neither file nor variable nor argument: no rate is set, and there is nothing to journal."""
    rates = read_rates(None, {}, None)
    assert rates == Rates()
    assert (rates.any, rates.as_dict()) == (False, {})


@pytest.mark.parametrize("name", NAMES)
def test_each_rate_is_read_from_file_variable_and_argument_in_this_order(tmp_path: Path, name: str) -> None:
    """The file's, then its variable above it, then the argument above both."""
    file, environ = written(tmp_path, f"{name}: 1.5"), {f"LEZEA_RATE_{name.upper()}": "2.5"}
    assert read_rates(file, {}).as_dict() == {name: 1.5}
    assert read_rates(file, environ).as_dict() == {name: 2.5}
    assert read_rates(file, environ, {name: 3}).as_dict() == {name: 3.0}
    assert read_rates(None, {}, {name: 3}).any


def test_what_is_empty_or_none_counts_as_not_given(tmp_path: Path) -> None:
    """An empty variable, a line without a value and None leave what stands below."""
    file = written(tmp_path, "core_hour_eur: 0.5\nkwh_eur:\n")
    assert read_rates(file, {"LEZEA_RATE_CORE_HOUR_EUR": ""}, {"core_hour_eur": None}) == Rates(
        core_hour_eur=0.5
    )


def test_gpus_have_prices_by_name_or_one_for_all(tmp_path: Path) -> None:
    """A variable with one number stands in place of all names."""
    file = written(tmp_path, "gpu_hour_eur: {NVIDIA H200: 3, default: 1.0e-1}")
    assert read_rates(file, {}).as_dict() == {"gpu_hour_eur": {"NVIDIA H200": 3.0, "default": 0.1}}
    assert read_rates(file, {"LEZEA_RATE_GPU_HOUR_EUR": "2"}).gpu_hour_eur == 2.0


def test_the_example_is_whole_and_can_be_journaled() -> None:
    """Every rate stands in it, set or as a comment, and what is set survives being JSON."""
    text = EXAMPLE.read_text()
    assert [name for name in NAMES if f"\n{name}:" not in text and f"\n# {name}:" not in text] == []
    rates = read_rates(EXAMPLE, {}).as_dict()
    assert json.loads(json.dumps(rates)) == rates
    assert rates["gpu_hour_eur"]["default"] > 0


def test_accounts_price_by_exactly_what_is_set() -> None:
    """What rates say of themselves is what the accounts go on from after a pause."""
    rates = read_rates(EXAMPLE, {"LEZEA_RATE_KWH_EUR": "0.25"}).as_dict()
    accounts = Accounts()
    accounts.observe("rates", {"rates": rates}, (), 0)
    assert accounts.state()["rates"] == rates


@pytest.mark.parametrize(
    "value",
    ["cheap", "0.04", -0.01, float("nan"), float("inf"), 1e10, True, [1], {"default": 1.0}],
    ids=repr,
)
def test_what_is_no_price_raises_and_says_which_and_what_is_allowed(value: Any) -> None:
    """Text, a negative number, NaN, infinity, an absurd number and a list."""
    with pytest.raises(
        ConfigurationError, match=r"rates: core_hour_eur is .*must be a number from 0"
    ) as raised:
        read_rates(None, {}, {"core_hour_eur": value})
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize("text", ["cheap", "-0.01", "nan", "inf", "0,04", "0.04 EUR"])
def test_a_variable_that_is_no_price_is_named(text: str) -> None:
    """The message shows the variable, not only the rate."""
    with pytest.raises(ConfigurationError, match=r"^LEZEA_RATE_CORE_HOUR_EUR is .*from 0 to 1,000,000,000"):
        read_rates(None, {"LEZEA_RATE_CORE_HOUR_EUR": text})


def test_a_line_of_a_file_that_is_no_price_is_named_with_its_file(tmp_path: Path) -> None:
    """File, rate, GPU, what was found and what is allowed."""
    file = written(tmp_path, "gpu_hour_eur:\n  NVIDIA H200: three euros\n")
    with pytest.raises(ConfigurationError) as raised:
        read_rates(file, {})
    assert str(raised.value) == (
        f"{file}: gpu_hour_eur['NVIDIA H200'] is 'three euros'; it must be a number from 0 to 1,000,000,000, "
        "without a unit"
    )


def test_a_name_that_nothing_has_raises_with_the_nearest_one(tmp_path: Path) -> None:
    """In a file, in the environment and as an argument, each in its own spelling."""
    with pytest.raises(
        ConfigurationError, match=r"rates\.yaml: core_hours_eur is no rate; .*'core_hour_eur'"
    ):
        read_rates(written(tmp_path, "core_hours_eur: 1"), {})
    with pytest.raises(ConfigurationError, match=r"LEZEA_RATE_KWH is no rate; .*LEZEA_RATE_KWH_EUR\?"):
        read_rates(None, {"LEZEA_RATE_KWH": "1"})
    with pytest.raises(ConfigurationError, match="rates: colour is no rate; known are core_hour_eur"):
        read_rates(None, {}, {"colour": 1})


@pytest.mark.parametrize("gpu", ["1", "''"])
def test_a_gpu_without_a_name_raises(tmp_path: Path, gpu: str) -> None:
    """A number of a device says nothing about its price on another host."""
    with pytest.raises(ConfigurationError, match=r"names the GPU .*'NVIDIA H200', or 'default'"):
        read_rates(written(tmp_path, f"gpu_hour_eur: {{{gpu}: 1.0}}"), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("core_hour_eur: [1", "no YAML of names and prices"),
        ("- 1\n- 2\n", "expected a line for each price"),
        ("just text", "just text is no rate; known are core_hour_eur"),
        ("core_hour_eur: ${nowhere}", "no YAML of names and prices"),
        ("core_hour_eur: '0.04'", "must be a number"),
    ],
)
def test_a_file_that_holds_no_prices_raises(tmp_path: Path, text: str, message: str) -> None:
    """Broken YAML, a list, text, an interpolation of nothing: each names the file."""
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_rates(file, {})
    assert str(raised.value).startswith(f"{file}: ")


def test_a_file_that_cannot_be_read_raises(tmp_path: Path) -> None:
    """One that is missing, a folder, and one that is no text."""
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    for name in ("missing.yaml", ".", "binary.yaml"):
        with pytest.raises(ConfigurationError, match="the file of rates"):
            read_rates(tmp_path / name, {})


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    """All lines may be comments."""
    assert read_rates(written(tmp_path, "# nothing yet\n"), {}) == Rates()


def test_what_is_no_mapping_raises() -> None:
    """A number alone does not say what it is the price of."""
    given: Any = 0.04
    with pytest.raises(ConfigurationError, match=r"rates is 0\.04; it must be a mapping"):
        read_rates(None, {}, given)
