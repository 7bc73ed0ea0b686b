"""Panels of Grafana 12 as dictionaries, of the five types that the dashboards use, in one style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GRAFANA_VERSION = "12.1.1"
SCHEMA_VERSION = 41  # that of Grafana 12.1
DATASOURCE = {"type": "prometheus", "uid": "lezea-prometheus"}
COLUMNS = 24

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"

Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One question to Prometheus.

    Args:
        expr: in PromQL; ``$run`` and the other variables of the dashboard stand for themselves.
        legend: how a series is called, with ``{{label}}`` for the value of a label.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel; the functions below make them, ``placed`` gives them their places.

    Attributes:
        kind: ``timeseries``, ``stat``, ``bargauge``, ``table`` or ``state-timeline``.
        unit: Grafana's name of the unit of all values that have no unit of their own.
        instant: ask for one moment, the end of what is shown, rather than for all of it.
        defaults: further entries of ``fieldConfig.defaults``.
    """

    kind: str
    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int
    height: int
    options: Json
    instant: bool = False
    defaults: Json = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()


def thresholds(*steps: tuple[float | None, str]) -> Json:
    """Return colours by value: each holds from its number on, the first from below."""
    return {
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in steps],
        },
        "color": {"mode": "thresholds"},
    }


def words(texts: Mapping[int, tuple[str, str]]) -> Json:
    """Return words and colours for values that are states."""
    options = {
        str(value): {"text": text, "color": color, "index": place}
        for place, (value, (text, color)) in enumerate(texts.items())
    }
    return {"mappings": [{"type": "value", "options": options}], "color": {"mode": "thresholds"}}


def series(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    low: float | None = 0,
    high: float | None = None,
) -> Panel:
    """Return a panel of lines over time; *low* and *high* bound the axis, None leaves it to the values."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 40 if stacked else 8,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    bounds = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults = {"custom": custom, "color": {"mode": "palette-classic"}} | bounds
    return Panel("timeseries", title, description, unit, queries, width, height, options, defaults=defaults)


def stat(
    title: str, description: str, unit: str, query: Query, *, width: int = 4, looks: Json | None = None
) -> Panel:
    """Return a panel of one number, the newest that is known within the time that is shown."""
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "auto",
        "wideLayout": True,
    }
    defaults = thresholds((None, BLUE)) if looks is None else looks
    return Panel("stat", title, description, unit, (query,), width, 4, options, defaults=defaults)


def bars(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    width: int = 12,
    height: int = 8,
    high: float | None = None,
    looks: Json | None = None,
) -> Panel:
    """Return a panel of bars, one for each series, of the newest values."""
    options = {
        "displayMode": "gradient",
        "maxVizHeight": 24,
        "minVizHeight": 12,
        "minVizWidth": 8,
        "namePlacement": "left",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    defaults: Json = {"min": 0} | ({} if high is None else {"max": high})
    defaults |= {"color": {"mode": "palette-classic"}} if looks is None else looks
    return Panel("bargauge", title, description, unit, (query,), width, height, options, defaults=defaults)


def states(
    title: str,
    description: str,
    query: Query,
    texts: Mapping[int, tuple[str, str]],
    *,
    width: int = 24,
    height: int = 5,
) -> Panel:
    """Return a panel of bands over time, coloured by a state; *texts* gives word and colour for each value."""
    options = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    defaults = words(texts) | {"custom": {"fillOpacity": 70, "lineWidth": 0, "spanNulls": False}}
    return Panel(
        "state-timeline", title, description, "none", (query,), width, height, options, defaults=defaults
    )


@dataclass(frozen=True)
class Column:
    """A column of numbers in a table, by name, with the question that fills it and what it looks like."""

    title: str
    unit: str
    expr: str
    looks: Json = field(default_factory=dict)


def table(
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    labels: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
    width: int = 24,
    height: int = 7,
) -> Panel:
    """Return a table: a row for each set of labels, with a column for each question.

    Args:
        columns: the questions; their series must have the same labels, or some of those of the first.
        labels: headings of labels that are not called as they are.
        links: where a click on a heading's cell leads, by heading.
    """
    # Grafana calls the values of a single question "Value", and those of several "Value #A", "Value #B", …
    names = ["Value"] if len(columns) == 1 else [f"Value #{_letter(place)}" for place in range(len(columns))]
    renamed = dict(zip(names, (column.title for column in columns), strict=True)) | dict(labels or {})
    organize = {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": renamed}
    overrides = [_override(column.title, {"unit": column.unit} | column.looks) for column in columns] + [
        _override(heading, {"links": [{"title": "Show it", "url": url}]})
        for heading, url in (links or {}).items()
    ]
    return Panel(
        "table",
        title,
        description,
        columns[0].unit,
        [Query(column.expr) for column in columns],
        width,
        height,
        {"cellHeight": "sm", "showHeader": True, "footer": {"show": False, "reducer": ["sum"], "fields": ""}},
        instant=True,
        defaults={"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True}},
        overrides=overrides,
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
    )


def _override(heading: str, properties: Json) -> Json:
    return {
        "matcher": {"id": "byName", "options": heading},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }


def _letter(place: int) -> str:
    return chr(ord("A") + place)


def _target(place: int, query: Query, panel: Panel) -> Json:
    return {
        "refId": _letter(place),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": "table" if panel.kind == "table" else "time_series",
        "instant": panel.instant,
        "range": not panel.instant,
        "exemplar": False,
    }


def as_json(panel: Panel, number: int, x: int, y: int) -> Json:
    """Return the panel as Grafana reads it, at that place."""
    return {
        "id": number,
        "type": panel.kind,
        "pluginVersion": GRAFANA_VERSION,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {
            "defaults": {"unit": panel.unit} | panel.defaults,
            "overrides": list(panel.overrides),
        },
        "options": panel.options,
        "targets": [_target(place, query, panel) for place, query in enumerate(panel.queries)],
        "transformations": list(panel.transformations),
    }


def _row(title: str, number: int, y: int) -> Json:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        "panels": [],
    }


def placed(sections: Mapping[str, Sequence[Panel]]) -> list[Json]:
    """Return the panels below their headings, from left to right and from above."""
    found: list[Json] = []
    y = 0
    for heading, panels in sections.items():
        found.append(_row(heading, len(found) + 1, y))
        x, y, tallest = 0, y + 1, 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            found.append(as_json(panel, len(found) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return found


def variable(name: str, label: str, query: str, *, many: bool = False) -> Json:
    """Return a choice at the top of a dashboard, filled by *query*; with *many*, several or all of it."""
    everything = {"text": "All", "value": "$__all"}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,  # whenever another time is shown: another time has other runs
        "regex": "",
        "sort": 1,
        "hide": 0,
        "multi": many,
        "includeAll": many,
        "allValue": ".*" if many else None,
        "options": [],
        "current": everything if many else {},
        "skipUrlSync": False,
    }
