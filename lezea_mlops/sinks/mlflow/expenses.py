"""What readings of resources, totals and costs are in MLflow."""

from __future__ import annotations

from collections.abc import Callable

from lezea_mlops.events import Envelope, expense_groups
from lezea_mlops.sinks.mlflow.pieces import (
    Payload,
    TextFile,
    Translation,
    dump,
    identity,
    number_of,
    own_fields,
    points,
    text_of,
)

Handler = Callable[[Envelope, Payload, Translation], None]

BUDGET_TAG = "lezea.budget_reached"


def _points(record: Envelope, p: Payload, out: Translation) -> None:
    for group in expense_groups(record):
        out.points += points(record, group.numbers, group.step, group.path, individual=group.individual)


def _with_file(path: Callable[[Envelope], str]) -> Handler:
    """Return what brings the numbers of a record, and all of it as a file."""

    def handle(record: Envelope, p: Payload, out: Translation) -> None:
        _points(record, p, out)
        out.texts.append(TextFile(path(record), dump(own_fields(p))))

    return handle


def _with_file_of_run(path: str) -> Handler:
    """Return what brings the numbers of a record, and all of it as the one file of the run at *path*."""
    with_file = _with_file(lambda _: path)

    def handle(record: Envelope, p: Payload, out: Translation) -> None:
        with_file(record, p, out)
        out.of_run = frozenset([path])

    return handle


def _budget_reached(record: Envelope, p: Payload, out: Translation) -> None:
    share = number_of(p.get("share"))
    if p.get("branch") == "run" and share is not None:
        out.tags[BUDGET_TAG] = f"{share:.0%} of {text_of(p.get('budget_eur'))} EUR"
        out.of_run = frozenset([BUDGET_TAG])


EXPENSES: dict[str, Handler] = {
    "resource": _points,
    "resource_totals": _with_file_of_run("resources/summary.json"),
    "resource_cost": _with_file(lambda record: f"business/cost_{identity(record)}.json"),
    "business": _with_file(lambda record: f"business/metrics_{identity(record)}.json"),
    "rates": _with_file_of_run("business/rates.json"),
    "budget_reached": _budget_reached,
}
