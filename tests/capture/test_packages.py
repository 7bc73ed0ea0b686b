"""The Python packages that a run can import."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lezea_mlops.capture import capture_packages


def install(folder: Path, name: str, version: str, header: str | None = None) -> None:
    """Leave the metadata of an installed distribution in *folder*."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" if header is None else header
    (info / "METADATA").write_text(f"{text}\nA description.\n\nName: impostor\nVersion: 9\n")


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first folder on ``sys.path``."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    return tmp_path / "first"


def test_it_agrees_with_importlib_metadata() -> None:
    """Every installed distribution is listed with the version that importlib.metadata knows."""

    def canonical(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    packages = capture_packages()
    names = {canonical(found.metadata["Name"]): found.metadata["Name"] for found in metadata.distributions()}
    assert packages.keys() == names.keys()
    for name in ("pytest", "hypothesis"):
        assert packages[name] == metadata.version(name)


def test_the_names_are_canonical_and_sorted(first: Path) -> None:
    """However a package spells itself, it is found under the name that pip shows for it."""
    for name in ("Zope.Interface", "nvidia_ml_py", "GitPython"):
        install(first, name, "1.0")
    assert list(capture_packages()) == ["gitpython", "nvidia-ml-py", "zope-interface"]


def test_the_first_folder_wins(first: Path) -> None:
    """Of two versions the one that an import would find is listed."""
    install(first, "numpy", "2.0")
    install(first.parent / "second", "numpy", "1.0")
    assert capture_packages() == {"numpy": "2.0"}


def test_the_description_is_not_read_as_a_header(first: Path) -> None:
    """Words in the text of a package do not change its name or version."""
    install(first, "honest", "1.0")
    assert capture_packages() == {"honest": "1.0"}


def test_a_package_in_development_is_listed(first: Path) -> None:
    """The older form of metadata, which develop installations leave, is read too."""
    folder = first / "mine.egg-info"
    folder.mkdir(parents=True)
    (folder / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: mine\nVersion: 0.1.dev0\n")
    assert capture_packages() == {"mine": "0.1.dev0"}


def test_broken_metadata_hides_nothing_else(first: Path) -> None:
    """Half-removed packages, empty and undecodable metadata are left out; the rest is there."""
    (first / "half_removed-1.0.dist-info").mkdir(parents=True)
    install(first, "nameless", "1.0", header="Metadata-Version: 2.1\n")
    install(first, "garbled", "1.0")
    (first / "garbled-1.0.dist-info" / "METADATA").write_bytes(b"Name: \xff\xfe\nVersion: 1\n")
    install(first, "whole", "3.1")
    assert capture_packages() == {"whole": "3.1"}
