"""The last values of a run's metrics, by names of which there may be any number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lezea_mlops.sinks.prometheus.families import Exposition
from lezea_mlops.sinks.prometheus.labels import MAX_LABEL, DistinctCount, label_text, number_of

MAX_METRICS = 600
# Deeper than what anybody logs as figures.
_MAX_DEPTH = 5
_ALL_INDIVIDUALS = ""


class LastValues:
    """The last value of each of at most ``MAX_METRICS`` names that are shared, and as many of individuals.

    What is shown are the shared names, and those of individuals, in order of appearance, as far as there is room.

    Attributes:
        nonfinite: how many values were NaN or infinite.
    """

    def __init__(self, left_out: DistinctCount) -> None:
        self.nonfinite = 0
        self._shared: dict[str, float] = {}
        self._individual: dict[str, float] = {}
        self._left_out = left_out
        self._bad_losses: set[str] = set()

    def take(self, prefix: str, values: Any, *, individual: bool = False, depth: int = 0) -> None:
        """Take every number of a mapping; what is no number is passed over.

        Args:
            prefix: what stands before each name, with a slash at its end, or nothing.
            values: numbers by name, as a payload holds them; mappings among them are folders.
            individual: the names belong to one of many individuals.
            depth: how many folders these values are in.
        """
        if not isinstance(values, Mapping) or "$blob" in values:
            return
        table = self._individual if individual else self._shared
        for name, value in values.items():
            number = value if type(value) is float else number_of(value)
            if number is None:
                self._take_folder(f"{prefix}{name}", value, individual, depth)
                continue
            key = f"{prefix}{name}"
            if len(key) > MAX_LABEL:
                key = label_text(key)
            if key in table or len(table) < MAX_METRICS:
                table[key] = number
            else:
                self._left_out.add(("metric", key))
            # The difference is NaN where the number is not finite.
            if number - number != 0.0:
                self.nonfinite += 1
                if _is_loss(name):
                    self._note_loss(key, individual)
            elif self._bad_losses and _is_loss(name):
                self._bad_losses.discard(_ALL_INDIVIDUALS if individual else key)

    def loss_is_nonfinite(self) -> bool:
        """Tell whether the last value of a loss is NaN or infinite; the losses of individuals count as one."""
        return bool(self._bad_losses)

    def show(self, shown: Exposition) -> None:
        """Show as many names as there is room for."""
        places = min(MAX_METRICS, shown.room)
        for table in (self._shared, self._individual):
            for name, value in table.items():
                if places:
                    shown.add("lezea_metric", value, label_text(name))
                    places -= 1
                else:
                    shown.dropped += 1

    def _take_folder(self, name: str, value: Any, individual: bool, depth: int) -> None:
        if not isinstance(value, Mapping) or depth >= _MAX_DEPTH:
            return
        if "$num" in value:
            # A number that is not finite, written where no number was expected.
            parent, slash, last = name.rpartition("/")
            self.take(parent + slash, {last: value["$num"]}, individual=individual, depth=_MAX_DEPTH)
        else:
            self.take(f"{name}/", value, individual=individual, depth=depth + 1)

    def _note_loss(self, key: str, individual: bool) -> None:
        if individual:
            self._bad_losses.add(_ALL_INDIVIDUALS)
        elif key in self._shared:
            self._bad_losses.add(key)


def _is_loss(name: Any) -> bool:
    return name == "loss" or str(name).endswith("/loss")
