"""What a run's events say: figures of metrics, use of data, advice. Pure functions and streaming aggregates."""

from lezea_mlops.insight.data import DataUsage
from lezea_mlops.insight.recommendations import recommend
from lezea_mlops.insight.series import Figures, SeriesGroup, SeriesTable, metric_name

__all__ = ["DataUsage", "Figures", "SeriesGroup", "SeriesTable", "metric_name", "recommend"]
