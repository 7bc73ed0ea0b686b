"""What is said of a tree in one sentence, on the page and in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from lezea_mlops.evolution import ModificationTree

_WORDS = {True: "accepted", False: "rejected", None: "undecided"}


def verdicts(counts: Mapping[bool | None, int]) -> str:
    """Return how many modifications were accepted, rejected and neither, those of which there are any."""
    return ", ".join(f"{counts[each]:,} {word}" for each, word in _WORDS.items() if counts.get(each))


def summary(tree: ModificationTree, counts: Mapping[bool | None, int]) -> str:
    """Return how large a tree is, how much was accepted, and which modification is the champion.

    Args:
        tree: the tree.
        counts: how many of its modifications were accepted (True), rejected (False) and neither (None).
    """
    if not len(tree):
        return "no modification was logged"
    noun = "modification" if len(tree) == 1 else "modifications"
    said = f"{len(tree):,} {noun}: {verdicts(counts)}"
    decided = counts.get(True, 0) + counts.get(False, 0)
    if decided:
        said += f" (acceptance {counts.get(True, 0) / decided:.1%})"
    if (best := tree.best()) is not None:
        said += f"; champion {best}, score {tree[best].modification.score:.6g}"
    return said
