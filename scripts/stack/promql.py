"""Which series and which labels a question in PromQL names; enough of its grammar for that, and no more."""

from __future__ import annotations

import re

# What Prometheus itself says of a target and of alerts, with its labels.
OF_PROMETHEUS = {
    "up": frozenset[str](),
    "scrape_duration_seconds": frozenset[str](),
    "scrape_samples_scraped": frozenset[str](),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "sink", "branch"}),
}
OF_EVERY_SERIES = frozenset({"run", "job", "instance"})

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_MATCHERS = re.compile(r"\{([^}]*)\}")
_LABEL_LIST = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_NUMBER = re.compile(r"\b\d[\w.]*")  # and durations
_WORD = re.compile(r"[a-zA-Z_:][\w:]*(?!\s*\()\b")
_CALL = re.compile(r"[a-zA-Z_]\w*\s*\(")
_KEYWORDS = frozenset(
    "and or unless bool offset by without on ignoring group_left group_right inf nan atan2".split()
)


def series_names(expr: str) -> set[str]:
    """Return the names of the series that *expr* asks for."""
    bare = _TEXT.sub('""', expr)
    for pattern in (_MATCHERS, _LABEL_LIST, _RANGE, _NUMBER, _CALL):
        bare = pattern.sub(" ", bare)
    return {word for word in _WORD.findall(bare) if word.lower() not in _KEYWORDS}


def label_names(expr: str) -> set[str]:
    """Return the labels that *expr* selects, groups or joins by."""
    bare = _TEXT.sub('""', expr)
    found = set()
    for matchers in _MATCHERS.findall(bare):
        found |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
    for listed in _LABEL_LIST.findall(bare):
        found |= set(re.findall(r"\w+", listed))
    return found


def selectors(expr: str) -> set[str]:
    """Return every series that *expr* asks for, with the braces behind its name."""
    names = "|".join(sorted(map(re.escape, series_names(expr)), key=len, reverse=True))
    return {match[0] for match in re.finditer(rf"(?<![\w:])(?:{names})(?![\w:])(?:\{{[^}}]*\}})?", expr)}


def unknown_parts(expr: str, known: dict[str, frozenset[str]]) -> list[str]:
    """Return what *expr* names and nobody makes: series, and labels that none of its series has.

    Args:
        expr: the question.
        known: labels by name of series.
    """
    names = series_names(expr)
    wrong = [f"nothing makes the series {name}" for name in sorted(names - set(known))]
    if not names:
        wrong.append("it asks for no series")
    labels = OF_EVERY_SERIES.union(*(known.get(name, frozenset()) for name in names))
    if not wrong:
        wrong += [f"no series in it has the label {label}" for label in sorted(label_names(expr) - labels)]
    return wrong
