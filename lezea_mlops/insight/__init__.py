"""What a run's events say: figures of metrics, use of data, advice. Pure functions and streaming aggregates."""

from lezea_mlops.insight.data import DataUsage
from lezea_mlops.insight.history import history_of
from lezea_mlops.insight.points import Point, points_of
from lezea_mlops.insight.recommendations import recommend
from lezea_mlops.insight.revisions import ABSENT, Revision, RevisionHistory
from lezea_mlops.insight.series import Figures, SeriesGroup, SeriesTable, metric_name

__all__ = [
    "ABSENT",
    "DataUsage",
    "Figures",
    "Point",
    "Revision",
    "RevisionHistory",
    "SeriesGroup",
    "SeriesTable",
    "history_of",
    "metric_name",
    "points_of",
    "recommend",
]
