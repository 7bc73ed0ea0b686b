"""The live picture of runs for Prometheus: one page of series per process, served over HTTP or written to a file.

It is no sink that is owed every record: it has no cursor, and shows what it has seen.
"""

from lezea_mlops.sinks.prometheus.exporter import LOOPBACK, Exporter
from lezea_mlops.sinks.prometheus.families import MAX_SERIES
from lezea_mlops.sinks.prometheus.outside import Outside
from lezea_mlops.sinks.prometheus.rendering import View, render
from lezea_mlops.sinks.prometheus.textfile import remove_dead_textfiles, remove_textfile, write_textfile
from lezea_mlops.sinks.prometheus.view import LiveView

__all__ = [
    "LOOPBACK",
    "MAX_SERIES",
    "Exporter",
    "LiveView",
    "Outside",
    "View",
    "remove_dead_textfiles",
    "remove_textfile",
    "render",
    "write_textfile",
]
