"""What is said of a store or server never holds the password of its address."""

from __future__ import annotations

import pytest

from lezea_mlops.servers.process import free_port
from lezea_mlops.sinks.base import Unavailable
from lezea_mlops.sinks.messages import MAX_LINE, first_line
from lezea_mlops.sinks.mlflow.connection import connect


@pytest.mark.parametrize(
    "uri",
    ["http://ada:canary@127.0.0.1:{port}", "//ada:canary@127.0.0.1:{port}", "file://ada:canary@host/mlruns"],
)
def test_an_address_that_cannot_be_used_is_told_without_its_password(uri: str) -> None:
    """One that does not answer, one whose scheme was forgotten, and a file store."""
    with pytest.raises(Unavailable) as caught:
        connect(uri.format(port=free_port()))
    assert "canary" not in str(caught.value)
    assert "host" in str(caught.value) or "127.0.0.1" in str(caught.value)


def test_the_first_line_of_an_error_is_redacted_before_it_is_cut() -> None:
    """Half a secret has no shape by which it could be found."""
    error = ValueError("x" * (MAX_LINE - 20) + " postgresql://ada:canary@db.example/mlflow\nsecond line")
    told = first_line(error)
    assert "ada" not in told
    assert told.startswith("ValueError: xxx")
    assert len(told) == len("ValueError: ") + MAX_LINE
    assert first_line(ValueError()) == "ValueError: "
