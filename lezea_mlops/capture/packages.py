"""The Python packages that a run can import."""

from __future__ import annotations

import re
from collections.abc import Iterator

# The file of a distribution that starts with its name and version, in the two ways of installing one.
_METADATA_FILES = ("METADATA", "PKG-INFO")


def capture_packages() -> dict[str, str]:
    """Return the installed distributions, canonical name to version, sorted by name.

    Where two folders on ``sys.path`` hold the same distribution, the first one counts, as it does for imports. A
    distribution whose metadata cannot be read has no name to list it under and is left out.
    """
    found: dict[str, str] = {}
    for head in _metadata_heads():
        name, version = _field("Name", head), _field("Version", head)
        if name and version:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return dict(sorted(found.items()))


def _metadata_heads() -> Iterator[str]:
    """Yield the header of every distribution's metadata.

    Only the header is looked at: `Distribution.name` and `.version` parse the whole file with its description as an
    e-mail, twice, which takes 100 ms for a hundred packages; this takes 3 ms.
    """
    from importlib.metadata import distributions  # the costly import of this module, so only where it is used

    for distribution in distributions():
        for file in _METADATA_FILES:
            try:
                text = distribution.read_text(file)
            except (OSError, UnicodeDecodeError):
                continue
            if text:
                yield text.partition("\n\n")[0]
                break


def _field(name: str, head: str) -> str | None:
    line = re.search(rf"^{name}:[ \t]*(\S+)", head, re.MULTILINE | re.IGNORECASE)
    return line[1] if line else None
