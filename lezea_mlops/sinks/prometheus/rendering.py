"""The page of all views of a process, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class View(Protocol):
    """The series of one run."""

    @property
    def run_id(self) -> str:
        """The experiment id."""

    def collect(self) -> Iterable[Metric]:
        """Return the run's series; called by the thread of a scrape."""


def render(views: Iterable[View], failed: Callable[[View, Exception], None] | None = None) -> bytes:
    """Return the page of *views*, each series once.

    Args:
        views: where several are of one run, the last of them is shown.
        failed: told of a view that raises, whose series are left out; None lets the error pass.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Page(views, failed))
    return generate_latest(registry)


class _Page:
    """A collector for ``prometheus_client``: families of the same name stand together, whatever view they are of."""

    def __init__(self, views: Iterable[View], failed: Callable[[View, Exception], None] | None) -> None:
        self._views = {view.run_id: view for view in views}
        self._failed = failed

    def collect(self) -> Iterator[Metric]:
        """Yield the families of all views."""
        together: dict[str, Metric] = {}
        for view in self._views.values():
            for metric in self._series_of(view):
                if (known := together.get(metric.name)) is None:
                    together[metric.name] = metric
                else:
                    known.samples.extend(metric.samples)
        yield from together.values()

    def _series_of(self, view: View) -> list[Metric]:
        try:
            return list(view.collect())
        except Exception as error:
            # One run's view must not take the others' with it.
            if self._failed is None:
                raise
            self._failed(view, error)
            return []
