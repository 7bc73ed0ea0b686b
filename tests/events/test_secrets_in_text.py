"""Secrets within texts: values of secret names in every spelling, and addresses whose passwords are unusual."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Redactor

MASK = Redactor.MASK


def redacted(text: str) -> str:
    """Return *text* without secrets."""
    return Redactor().redact(text)[0]


VALUES = [
    ("password=horse, lr=0.1", f"password={MASK}, lr=0.1"),
    ("call(password='correct horse', n=3)", f"call(password='{MASK}', n=3)"),
    ('{"api_key": "correct horse", "n": 3}', f'{{"api_key": "{MASK}", "n": 3}}'),
    ("{'apiKey': 'it\\'s', 'n': 3}", f"{{'apiKey': '{MASK}', 'n': 3}}"),
    ('password = "correct horse"', f'password = "{MASK}"'),
    ("https://h/x?api_key=horse&page=2", f"https://h/x?api_key={MASK}&page=2"),
    ("export GITHUB_TOKEN=horse; ./x", f"export GITHUB_TOKEN={MASK}; ./x"),
    ("db.password=horse db/password=horse", f"db.password={MASK} db/password={MASK}"),
    ("run --token horse --lr 0.1", f"run --token {MASK} --lr 0.1"),
    ("Command '['curl', '--password', 'horse']' failed", f"Command '['curl', '--password', '{MASK}']' failed"),
    ("run --client-secret=horse", f"run --client-secret={MASK}"),
    ("server:\n  password: horse\n  port: 80", f"server:\n  password: {MASK}\n  port: 80"),
    ("- secret: horse", f"- secret: {MASK}"),
    ("curl -H 'Cookie: a=horse; b=2' x", f"curl -H 'Cookie: {MASK}' x"),
    ("Authorization: token horse\nAccept: */*", f"Authorization: {MASK}\nAccept: */*"),
    ("passwd=1234567", f"passwd={MASK}"),
    ("AccountKey=Zm9v/bar==;EndpointSuffix=x", f"AccountKey={MASK};EndpointSuffix=x"),
    ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nrest", f"{MASK}\nrest"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc cut off", MASK),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), VALUES)
def test_the_value_of_a_secret_name_is_masked_and_the_rest_stays(text: str, shown: str) -> None:
    """As code, JSON, YAML, an address, a shell command or a header has it; name and quotes stay."""
    redactor = Redactor()
    assert redactor.redact(text) == (shown, shown.count(MASK))
    assert redactor.found.total() == shown.count(MASK)
    assert redactor.redact(shown) == (shown, 0)


HARMLESS = [
    "token=5", "max_tokens=4096", "token_accuracy=0.75", "tokenizer='bytes'", "password=None", "secret=${VAULT}",
    "token={token}", "auth=True", "monkey=banana", "a token of the language: the", "secretary=ada", "api_keys=[]",
    "the password: that of the database, as always", "author: ada", "--max-tokens 4096", "--tokenizer bytes",
    "password='***'", "pad_token='<pad>'", "password=", "token='token'", "basic understanding of the matter",
    "the bearer of this letter", "cookiecutter: yes", "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----",
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    """Numbers, no values, places for values, names that only resemble, and prose."""
    assert Redactor().redact(text) == (text, 0)


ADDRESSES = [
    ("mongodb://ada:p/w?#x@db.example/lezea", f"mongodb://{MASK}@db.example/lezea"),
    ("redis://:horse@h:6379/0", f"redis://{MASK}@h:6379/0"),
    ("no file /home/ada/s3:/KEY:se/cret@bucket/x", f"no file /home/ada/s3:/{MASK}@bucket/x"),
    ("https:/ada:horse@h/x", f"https:/{MASK}@h/x"),
    ("'postgres://ada:ho/rse@h/d', 'mail': 'a@b'", f"'postgres://{MASK}@h/d', 'mail': 'a@b'"),
]
HARMLESS_ADDRESSES = [
    "https://example.org:8080/a@b", "http://[::1]:5000/a@b", "http://h:80?x=a@b", "file:/home/a@b", "C:/Users/a@b",
    "s3://bucket/key:part@v1", "git@github.com:team/x.git", "sqlite:////home/a:b@c.db", "12:30:/x@y",
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), ADDRESSES)
def test_unusual_passwords_of_addresses_are_masked(text: str, shown: str) -> None:
    """With slashes, without a user, and where an address became a path and lost a slash."""
    redactor = Redactor()
    assert redactor.redact(text) == (shown, 1)
    assert redactor.found == {"userinfo of a URI": 1}
    assert redactor.redact(shown)[0] == shown
    assert redactor.found == {"userinfo of a URI": 1}


@pytest.mark.parametrize("text", HARMLESS_ADDRESSES)
def test_addresses_without_a_password_stay(text: str) -> None:
    """A port, an ``@`` in a path, a folder on another disk."""
    assert Redactor().redact(text) == (text, 0)


def test_what_was_found_is_counted_by_name_and_kind() -> None:
    """Spellings of one name count as one; a secret with two signs is counted once."""
    redactor = Redactor()
    redactor.redact("api_key=a1b2c3 apiKey='x' API-KEY=y")
    redactor.redact("password=" + "ghp_" + "aB3x" * 9)
    redactor.redact_arguments(["--api-key", "x", "--hf_token=y", "--store", "mongodb://a:b@h/d"])
    assert redactor.found == {"apikey": 4, "token of github": 1, "hftoken": 1, "userinfo of a URI": 1}


def test_an_option_without_a_value_does_not_take_the_next_option() -> None:
    """What comes next is one of its own, and so is its value."""
    arguments = ["train.py", "--token", "--lr", "0.1"]
    assert Redactor().redact_arguments(arguments) == (arguments, 0)


@given(st.text(), st.sampled_from([text for text, _ in [*VALUES, *ADDRESSES]]), st.text())
def test_redacting_twice_changes_nothing_more(before: str, secret: str, after: str) -> None:
    """Whatever stands beside a secret."""
    once = redacted(f"{before} {secret}{os.linesep}{after}")
    assert redacted(once) == once


@pytest.mark.parametrize(
    "piece", ["password=", "a:/", "x://a:", "-", "--token ", '"password": "', "a_b.c-", "cookie: "]
)
def test_long_texts_are_searched_in_proportion_to_their_length(piece: str) -> None:
    """None of these takes hours: a search that begins anew at each place, and runs to the end, would."""
    Redactor().redact(piece * (200_000 // len(piece)))
