"""What a sink says of its address may hold a password; what is kept and told of it does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.events import Envelope
from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.base import Rejected, Unavailable
from lezea_mlops.testing import FakeClock, MemorySink
from tests.delivery.shipping import set_aside

SAID = "no answer from mongodb://ada:canary-one@db.example/lezea, called with password='canary-two'"


class TalkativeSink(MemorySink):
    """Fails, and tells how it was called."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Refuse the third record, or fail altogether."""
        if not isinstance(self.error, Rejected) or any(record.seq == 3 for record in records):
            try:
                raise ConnectionError(SAID)
            except ConnectionError as cause:
                raise self.error from cause


@pytest.mark.parametrize(
    "error", [Unavailable(SAID), ValueError(SAID), KeyError("without its cause")], ids=repr
)
def test_a_failure_is_kept_and_told_without_secrets(
    error: Exception, folder: RunFolder, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """In ``health()``, in the log and in the traceback with its causes; what else it says stays."""
    shipper = Shipper(folder, TalkativeSink(error), clock)
    assert shipper.ship_once() is Step.FAILED
    told = f"{shipper.health.as_dict(5)} {caplog.text}"
    assert "canary" not in told
    if not isinstance(error, KeyError):
        assert "no answer from mongodb://[redacted]@db.example/lezea" in str(shipper.health.last_error)
    if not isinstance(error, Unavailable):
        assert "Traceback (most recent call last)" in caplog.text
        assert "ConnectionError: no answer from mongodb://[redacted]@db.example/lezea" in caplog.text


def test_the_reason_of_a_refusal_is_set_aside_without_secrets(
    folder: RunFolder, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It stands in a file for ever."""
    sink = TalkativeSink(Rejected(SAID))
    shipper = Shipper(folder, sink, clock)
    assert shipper.ship_once() is Step.SHIPPED
    [line] = set_aside(folder, sink)
    assert line["reason"] == SAID.replace("ada:canary-one", "[redacted]").replace("canary-two", "[redacted]")
    assert "canary" not in caplog.text
