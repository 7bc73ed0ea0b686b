"""Secrets: removed from texts by name, by form and from addresses; numbers and names of metrics stay."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Cleaner, Redactor
from lezea_mlops.events.values import MAX_NAMES_REMEMBERED

MASK = Redactor.MASK


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


@pytest.fixture
def cleaner(redactor: Redactor) -> Cleaner:
    return Cleaner(redactor=redactor)


SECRET_NAMES = [
    "password", "PASSWORD", "passwd", "token", "secret", "api_key", "api-key", "apiKey", "access_token", "auth-token",
    "client_secret", "aws_secret_access_key", "private_key", "authorization", "cookie", "credentials", "hf_token",
    "WANDB_API_KEY", "OPENAI_API_KEY", "MLFLOW_TRACKING_PASSWORD", "database.password", "server.auth.token",
]  # fmt: skip
HARMLESS_NAMES = [
    "max_tokens", "tokens", "tokenizer", "num_tokens_per_batch", "token_loss", "secretary", "author", "password_length",
    "key", "keys", "monkey", "public_key_count", "loss", "", ".", "token.count",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_text_under_a_secret_name_is_masked_and_counted(cleaner: Cleaner, name: str) -> None:
    """The name stays, the text goes, at any depth and however short it is."""
    assert cleaner.clean({name: "x"}) == {name: MASK}
    assert cleaner.clean([{"deep": {name: "correct horse"}}]) == [{"deep": {name: MASK}}]
    assert cleaner.counts == {"redacted": 2}


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_other_names_are_left_alone(cleaner: Cleaner, name: str) -> None:
    """A name that only resembles a secret one keeps its text."""
    assert cleaner.clean({name: "a harmless text"}) == {name: "a harmless text"}
    assert not cleaner.counts


@pytest.mark.parametrize("value", [b"horse", bytearray(b"horse"), ["ada", "horse"], ("horse",), [b"horse"]])
def test_bytes_and_lists_of_texts_under_a_secret_name_are_masked_too(cleaner: Cleaner, value: Any) -> None:
    """A token read from a file is bytes; user and password may come as a pair."""
    assert cleaner.clean({"token": value}) == {"token": MASK}
    assert cleaner.counts == {"redacted": 1}


def test_a_name_is_judged_by_what_stands_under_it_each_time(cleaner: Cleaner) -> None:
    """What was once a count may be a text the next time, and the other way round; many names change nothing."""
    many = {f"name {number}": "text" for number in range(MAX_NAMES_REMEMBERED + 1)}
    assert cleaner.clean([{"token": 5}, many, {"token": "x", "secret": "y", "note": "z"}, {"token": 6}]) == [
        {"token": 5}, many, {"token": MASK, "secret": MASK, "note": "z"}, {"token": 6},
    ]  # fmt: skip
    assert cleaner.counts == {"redacted": 2}


@pytest.mark.parametrize("value", [5, 0.5, True, None, [1, 2], {"count": 3}])
def test_numbers_under_a_secret_name_stay(cleaner: Cleaner, value: Any) -> None:
    """A number is no secret: ``token: 5`` counts something."""
    assert cleaner.clean({"token": value, "password": value}) == {"token": value, "password": value}
    assert not cleaner.counts


def test_fields_of_a_dataclass_are_names_too(cleaner: Cleaner) -> None:
    """Settings objects hide their secrets as dictionaries do."""

    @dataclass
    class Login:
        user: str = "ada"
        password: str = "correct horse"
        max_tokens: int = 4096

    assert cleaner.clean(Login()) == {"user": "ada", "password": MASK, "max_tokens": 4096}
    assert cleaner.counts == {"redacted": 1}


@pytest.mark.parametrize("name", ["password", "token", "sk-" + "a" * 40])
def test_names_of_metrics_and_keys_are_never_touched(cleaner: Cleaner, name: str) -> None:
    """A metric may have any name, even that of a secret."""
    assert cleaner.metrics({name: 0.5}) == ({name: 0.5}, [])
    assert cleaner.clean({name: 0.5}) == {name: 0.5}
    assert not cleaner.counts


# Put together here, so that no program that looks for secrets takes this file for one.
TOKENS = {
    "openai": "sk-" + "aB3_-" * 8, "huggingface": "hf_" + "aB3x" * 8, "github": "ghp_" + "aB3x" * 9,
    "github, fine": "github_pat_" + "aB3_" * 10, "gitlab": "glpat-" + "aB3_-" * 4, "slack": "xoxb-" + "12345-" * 4,
    "amazon": "AKIA" + "ABCD" * 4, "google": "AIza" + "aB3_-" * 7, "jwt": "eyJ" + ".".join(["aB3_-" * 4] * 3),
    "stripe": "rk_live_" + "aB3x" * 6, "gitlab, runner": "glrt-" + "aB3_-" * 4, "slack, app": "xapp-" + "12345-" * 4,
    "slack, hook": "hooks.slack.com/services/" + "aB3x/" * 5, "amazon, session": "ASIA" + "ABCD" * 4,
    "google, access": "ya29." + "aB3_-" * 5, "npm": "npm_" + "aB3x" * 9, "package index": "pypi-" + "aB3_-" * 7,
    "databricks": "dapi" + "0a1b" * 8, "groq": "gsk_" + "aB3x" * 9, "azure": "sig=" + "aB3%2" * 9 + "=",
    "bearer": "Bearer " + "aB3x." * 5, "basic": "basic " + "aB3x" * 5 + "==",
}  # fmt: skip


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_token_of_a_known_form_is_masked_wherever_it_stands(redactor: Redactor, token: str) -> None:
    """In a sentence, in quotes, twice in one text: each is masked and counted, the rest stays."""
    assert redactor.redact(token) == (MASK, 1)
    assert redactor.redact(f"use '{token}', then {token}!") == (f"use '{MASK}', then {MASK}!", 2)


@pytest.mark.parametrize(
    "text",
    [
        "a short-lived mask-based risk-averse approach that is quite long", "sk-learn", "hf_hub", "ghp_short",
        "AKIAabcd", "eyJ.a.b", "x" * 500, "0b0f8c8e-6e0c-4c59-9d57-1d1f3f9a1c55",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ],
)  # fmt: skip
def test_ordinary_words_ids_and_hashes_are_no_tokens(redactor: Redactor, text: str) -> None:
    """What a person writes about an experiment stays readable."""
    assert redactor.redact(text) == (text, 0)


ADDRESSES = [
    ("mongodb://ada:horse@db.example/lezea", f"mongodb://{MASK}@db.example/lezea"),
    ("https://ada@example.org/x?y=z", f"https://{MASK}@example.org/x?y=z"),
    ("postgresql+psycopg2://ada:p%40ss@[::1]:5432/db", f"postgresql+psycopg2://{MASK}@[::1]:5432/db"),
    ("mongodb://ada:p@ss@db.example/lezea", f"mongodb://{MASK}@db.example/lezea"),
    ("clone git+https://u:p@h/r and s3://k:s@b/p", f"clone git+https://{MASK}@h/r and s3://{MASK}@b/p"),
]
HARMLESS_ADDRESSES = [
    "https://example.org/a@b", "https://example.org?mail=a@b.org", "https://example.org#a@b", "sqlite:///mlflow.db",
    "write to ada@example.org", "http://localhost:5000 and ada@example.org", "://a@b", "file:///home/ada@work/x",
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), ADDRESSES)
def test_the_user_of_an_address_is_masked(redactor: Redactor, text: str, shown: str) -> None:
    """Name and password before the host go, even if the password holds an ``@``; host and path stay."""
    assert redactor.redact(text) == (shown, shown.count(MASK))


@pytest.mark.parametrize("text", HARMLESS_ADDRESSES)
def test_an_address_without_a_user_stays(redactor: Redactor, text: str) -> None:
    """An ``@`` behind the host, or of a mail address, is no user."""
    assert redactor.redact(text) == (text, 0)


def test_a_long_text_without_an_end_of_word_is_searched_at_once(redactor: Redactor) -> None:
    """The search takes time in proportion to the text: this one would else take hours."""
    text = "a." * 500_000 + "://"
    assert redactor.redact(text) == (text, 0)


ARGUMENTS = [
    (["train.py", "--token", "abc", "--lr", "0.1"], ["train.py", "--token", MASK, "--lr", "0.1"], 1),
    (["--token=abc", "--api-key=", "--lr=0.1"], [f"--token={MASK}", f"--api-key={MASK}", "--lr=0.1"], 2),
    (["-password", "abc"], ["-password", MASK], 1),
    (["server.token=abc", "+db.password=x", "lr=0.1"], [f"server.token={MASK}", f"+db.password={MASK}", "lr=0.1"], 2),
    (["--max_tokens", "4096", "--max_tokens=5"], ["--max_tokens", "4096", "--max_tokens=5"], 0),
    (["--uri", "mongodb://a:b@h/d"], ["--uri", f"mongodb://{MASK}@h/d"], 1),
    (["--key", TOKENS["github"]], ["--key", MASK], 1),
    (["--token"], ["--token"], 0), (["token", "abc"], ["token", "abc"], 0), ([], [], 0),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "shown", "count"), ARGUMENTS)
def test_secret_options_of_a_command_line_lose_their_values(
    redactor: Redactor, arguments: list[str], shown: list[str], count: int
) -> None:
    """In two words or with a sign between, the value goes and the option stays."""
    given = list(arguments)
    assert redactor.redact_arguments(arguments) == (shown, count)
    assert arguments == given


@given(st.text(), st.sampled_from(sorted(TOKENS.values())), st.text())
def test_redacting_twice_changes_nothing_more(before: str, token: str, after: str) -> None:
    """What was redacted once is clean, and no token is left in it."""
    redactor = Redactor()
    once, _count = redactor.redact(f"{before} {token} {after}")
    assert token not in once
    assert redactor.redact(once)[0] == once


def test_without_a_redactor_texts_stay() -> None:
    """``redact=False`` means what it says."""
    assert Cleaner().clean({"password": "x", "uri": "http://a:b@h"}) == {
        "password": "x",
        "uri": "http://a:b@h",
    }


def test_the_cleaner_counts_every_secret(cleaner: Cleaner) -> None:
    """Secrets in lists, keys' texts and long texts add up."""
    text = f"{TOKENS['gitlab']} {TOKENS['amazon']}{os.linesep}" + "x" * 100
    cleaner.clean({"notes": [text, "http://a:b@h"], "secret": "y"})
    assert cleaner.counts == {"redacted": 4}
