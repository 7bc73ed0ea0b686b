"""How an audit divides metrics, and what it makes of points that no record brought; without a store."""

from __future__ import annotations

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from lezea_mlops.sinks.mlflow.audit_points import explained
from lezea_mlops.sinks.mlflow.audit_survey import Stamp, brief, share_out, stamp

COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), max_size=8)
STAMPS = st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.5, 0.25, None]))


@given(counts=COUNTS, most=st.integers(1, 25))
@example(counts={}, most=1)
def test_every_point_is_compared_once(counts: dict[str, int], most: int) -> None:
    """Each step of each metric is in exactly one share, and no share is larger than it may be."""
    shares = share_out(counts, most)
    seen: Counter[tuple[str, int]] = Counter()
    for share in shares:
        taken = [
            (key, step)
            for key in share.keys
            for step in range(counts[key])
            if step % share.parts == share.part
        ]
        assert len(taken) <= most
        seen.update(taken)
    assert seen == Counter((key, step) for key, count in counts.items() for step in range(count))


@given(journal=st.sets(STAMPS), store=st.sets(STAMPS))
def test_each_difference_is_said_once(journal: set[Stamp], store: set[Stamp]) -> None:
    """A point of the journal that is not there is missing, or was altered into one that should not be there."""
    missing = {point: ("main", number) for number, point in enumerate(sorted(journal - store, key=repr))}
    origins = dict(missing)
    known = {(step, value) for step, _, value in journal & store}
    findings = list(explained("loss", store - journal, missing, known))
    assert len(findings) == len(store - journal)
    altered = [finding for finding in findings if finding.wid is not None]
    assert all(finding.kind == "altered" and finding.mendable for finding in altered)
    assert len(altered) + len(missing) == len(journal - store)
    assert missing.items() <= origins.items()
    mended = {finding.seq for finding in altered}
    assert mended == {seq for point, (_, seq) in origins.items() if point not in missing}


def test_the_double_of_a_point_is_told_from_a_stranger() -> None:
    """The same value at the same step and another time, beside one whose value nobody logged."""
    findings = list(explained("loss", {(1, 20, 0.5), (1, 20, 0.7), (2, 20, 0.5)}, {}, {(1, 0.5)}))
    assert [
        (finding.kind, finding.what) for finding in sorted(findings, key=lambda each: str(each.found))
    ] == [
        ("altered", "metric loss step 2"),
        ("altered", "metric loss step 1"),
        ("doubled", "metric loss step 1"),
    ]


def test_a_point_is_told_apart_as_mlflow_does() -> None:
    """NaN equals NaN, infinity is stored as NaN, and the zeros are one number."""
    assert (
        stamp(1, 2, float("nan")) == stamp(1, 2, float("inf")) == stamp(1, 2, float("-inf")) == (1, 2, None)
    )
    assert stamp(1, 2, -0.0) == stamp(1, 2, 0.0)
    assert stamp(1, 2, 0.5) != stamp(1, 2, 0.5000000001)


def test_long_texts_are_shown_by_their_beginning() -> None:
    """And by how long they are."""
    assert brief("x" * 200) == "x" * 200
    assert brief("x" * 201) == "x" * 200 + "… (201 characters)"
