"""The codec: one line of strict JSON, the same bytes from every encoder, nothing lost that came from elsewhere."""

from __future__ import annotations

import json
import math
import struct
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lezea_mlops.events import (
    CLASS_OF_TYPE,
    Envelope,
    NotARecord,
    UnknownEvent,
    codec,
    decode_line,
    encode_envelope,
    encode_json,
    line_template,
)
from lezea_mlops.events.plain import decode_plain, encode_plain

finite = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(1e-7, 1e-4), st.floats(1e15, 1e17), st.floats(0, 5e-308, allow_subnormal=True),
    st.integers(-400, 400).map(lambda exponent: float(f"1e{exponent}")).filter(math.isfinite),
)  # fmt: skip
texts = st.one_of(
    st.text(), st.text(st.characters(max_codepoint=0x80)), st.text('"\\/\b\f\n\r\t\x7f\u2028😀')
)
cleaned = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), finite, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
objects = st.dictionaries(texts, cleaned, max_size=4)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal in type and in every bit."""
    return repr(one) == repr(other)


@given(cleaned)
@example([])
@example({})
@example({"": {}, "a": [[], {}]})
@example([0.0, -0.0, 5e-324, 2.2250738585072014e-308, sys.float_info.max, -sys.float_info.max])
@example([1e15, 1e16, 123456789012345680.0, 1e17, 1e-5, 1e-6, 1.5e-6, 1e-7, 0.1, 1 / 3, 1e22, 1e23])
def test_both_encoders_write_the_same_bytes(value: Any) -> None:
    """A journal written without msgspec cannot be told from one written with it."""
    assert encode_plain(value) == msgspec.json.encode(value)
    assert encode_json is not encode_plain


@given(cleaned)
@example({"a\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace"): 1})
def test_both_decoders_read_the_same_values(value: Any) -> None:
    """What was written reads back in type and in every bit, with and without msgspec."""
    line = encode_json(value)
    assert same(decode_plain(line), value)
    assert same(msgspec.json.decode(line), value)
    assert same(decode_plain(json.dumps(value, indent=1).encode()), value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_bits_of_a_float_survive(number: float) -> None:
    """A number of a payload is exactly the one that was measured."""
    for encode in (encode_json, encode_plain):
        back = decode_line(b'{"v":1,"t":"x","m":{"seq":1,"ts":1},"p":{"n":%b}}' % encode(number)).payload["n"]
        assert struct.pack("<d", back) == struct.pack("<d", number)


LINES_THAT_ARE_NO_JSON = [
    b"", b" ", b"\x00\x00\x00", b"nothing", b'{"v":1', b"[1,]", b'{"a":1}x', b"1 2", b"01", b'"\x01"', b'"\xff"',
    b"\xef\xbb\xbf{}", b"NaN", b"[Infinity]", b'{"a":-Infinity}', b"1e400", b"-1e400", b'"\\ud800"',
    b'"a\\udc00b"', b"'a'", b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("line", LINES_THAT_ARE_NO_JSON, ids=lambda line: repr(line[:20]))
def test_both_decoders_refuse_the_same_lines(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no strict JSON is no record, with and without msgspec."""
    with pytest.raises(NotARecord, match=r"^not JSON: ."):
        decode_line(line)
    monkeypatch.setattr(codec, "_decode_json", decode_plain)
    monkeypatch.setattr(codec, "_DECODE_ERRORS", (ValueError, RecursionError))
    with pytest.raises(NotARecord, match=r"^not JSON: ."):
        decode_line(line)


def test_a_character_as_a_pair_of_escapes_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that write ASCII only write such pairs, and both decoders take them."""
    line = b'{"v":1,"t":"x","m":{"seq":1,"ts":1},"p":{"k":"\\ud83d\\ude00"}}'
    assert decode_line(line).payload["k"] == "😀"
    monkeypatch.setattr(codec, "_decode_json", decode_plain)
    assert decode_line(line).payload["k"] == "😀"


INCOMPLETE = [
    b"null", b"5", b'"text"', b"[]", b"{}", b'["t","m","p","v"]',
    b'{"t":"x","m":{"seq":1,"ts":1},"p":{}}', b'{"v":1,"m":{"seq":1,"ts":1},"p":{}}',
    b'{"v":1,"t":"x","p":{}}', b'{"v":1,"t":"x","m":{"seq":1,"ts":1}}', b'{"v":1,"t":"x","m":{"ts":1},"p":{}}',
    b'{"v":1,"t":"x","m":{"seq":1},"p":{}}', b'{"v":1,"t":"x","m":"seq","p":{}}', b'{"v":1,"t":"x","m":[],"p":{}}',
]  # fmt: skip
WRONG = [
    b'{"v":"1","t":"x","m":{"seq":1,"ts":1},"p":{}}', b'{"v":true,"t":"x","m":{"seq":1,"ts":1},"p":{}}',
    b'{"v":1,"t":5,"m":{"seq":1,"ts":1},"p":{}}', b'{"v":1,"t":"x","m":{"seq":"1","ts":1},"p":{}}',
    b'{"v":1,"t":"x","m":{"seq":1.0,"ts":1},"p":{}}', b'{"v":1,"t":"x","m":{"seq":1,"ts":null},"p":{}}',
    b'{"v":1,"t":"x","m":{"seq":true,"ts":1},"p":{}}', b'{"v":1,"t":"x","m":{"seq":1,"ts":1},"p":[]}',
    b'{"v":1,"t":"x","m":{"seq":1,"ts":1},"p":null}', b'{"v":1,"t":"x","m":{"seq":1,"ts":1,"wid":7},"p":{}}',
    b'{"v":1,"t":"x","m":{"seq":1,"ts":1,"att":"2"},"p":{}}',
]  # fmt: skip


@pytest.mark.parametrize("line", INCOMPLETE)
def test_a_line_that_lacks_a_part_is_no_record(line: bytes) -> None:
    """The text names the parts that are needed."""
    with pytest.raises(NotARecord, match=r"v, t, m\.seq, m\.ts and p are needed"):
        decode_line(line)


@pytest.mark.parametrize("line", WRONG)
def test_a_line_whose_part_has_the_wrong_type_is_no_record(line: bytes) -> None:
    """Nobody who reads a record later meets a number where text belongs."""
    with pytest.raises(NotARecord, match="a part has the wrong type"):
        decode_line(line)


@given(texts, objects, objects, st.integers(1, 2**53), st.integers(0, 2**62), st.integers(1, 9))
def test_types_and_fields_of_later_versions_survive(
    kind: str, payload: dict[str, Any], meta: dict[str, Any], seq: int, ts: int, version: int
) -> None:
    """A record that this version does not know is carried on byte for byte."""
    meta = meta | {"seq": seq, "ts": ts, "wid": "rank3", "att": 2}
    line = encode_json({"v": version, "t": f"future-{kind}", "m": meta, "p": payload})
    record = decode_line(line + b"\n")
    assert encode_envelope(record) == line
    assert (record.seq, record.ts, record.wid, record.att) == (seq, ts, "rank3", 2)


@given(
    st.one_of(st.sampled_from(sorted(CLASS_OF_TYPE)), texts.filter(lambda kind: kind not in CLASS_OF_TYPE)),
    objects,
)
def test_the_typed_view_keeps_every_field(kind: str, payload: dict[str, Any]) -> None:
    """An event has all fields of the payload but the run's id, whether its class declares them or not."""
    if kind in codec.ALIASES:
        return
    fields = payload | {"self": 1, "type": "t", "fields": [], "cls": None}
    fields.pop("run_id", None)
    line = encode_json({"v": 1, "t": kind, "m": {"seq": 1, "ts": 1}, "p": fields | {"run_id": "r"}})
    event = decode_line(line).event
    assert event.fields == fields
    assert event.type == kind
    assert type(event) is CLASS_OF_TYPE.get(kind, UnknownEvent)


@pytest.mark.parametrize(
    ("alias", "kind"), [("run_start", "run_started"), ("run_end", "run_finished"), ("metric_batch", "metric")]
)
def test_the_names_of_other_programs_are_accepted(alias: str, kind: str) -> None:
    """The protocol's names for the first and the last event and for a batch mean ours."""
    record = decode_line(
        encode_json({"v": 1, "t": alias, "m": {"seq": 1, "ts": 1}, "p": {"status": "failed"}})
    )
    assert record.type == kind
    assert type(record.event) is CLASS_OF_TYPE[kind]


def test_what_the_envelope_may_leave_out_has_a_meaning() -> None:
    """Without a writer it is ``main``, without an attempt the first, without scopes none."""
    record = decode_line(b' {"v":1,"t":"x","m":{"seq":7,"ts":9,"wid":null},"p":{}} \n')
    assert (record.seq, record.ts, record.wid, record.att) == (7, 9, "main", 1)
    assert (record.run_id, list(record.scope), record.order_key) == ("", [], (1, 9, "main", 7))


@pytest.mark.parametrize(
    "scope", ["builder:42", 5, {"builder": "42"}, ["builder"], [["builder"]], [["builder", 42]]]
)
def test_a_scope_that_is_none_counts_as_none(scope: Any) -> None:
    """No destination has to expect a scope of another form; the payload keeps what was said."""
    record = decode_line(encode_json({"v": 1, "t": "x", "m": {"seq": 1, "ts": 1}, "p": {"scope": scope}}))
    assert list(record.scope) == []
    assert record.payload["scope"] == scope


@given(
    texts, texts, texts, st.integers(1, 9), st.lists(st.tuples(texts, texts), max_size=3), st.booleans(), st.booleans(),
    objects.filter(bool),
)  # fmt: skip
@example("100%", "%d%s", "%%", 1, [("%b", "%(x)s")], True, True, {"%": "%d"})
def test_a_line_from_a_template_is_the_record_itself(
    run_id: str,
    wid: str,
    kind: str,
    att: int,
    scope: list[Any],
    auto: bool,
    late: bool,
    fields: dict[str, Any],
) -> None:
    """The short way to a line gives the bytes of the long one, whatever signs names and ids hold."""
    template = line_template(kind, run_id=run_id, wid=wid, att=att, scope=tuple(scope), auto=auto, late=late)
    line = template % (42, 1_763_690_000_123_456, encode_json(fields)[1:])
    meta = {"seq": 42, "ts": 1_763_690_000_123_456, "wid": wid, "att": att}
    meta |= {name: True for name, on in (("auto", auto), ("late", late)) if on}
    # Fields of the same names as ours stand twice in the line; that is the caller's business, not the template's.
    payload = {"run_id": run_id} | ({"scope": [list(pair) for pair in scope]} if scope else {})
    if payload.keys().isdisjoint(fields):
        assert line == encode_envelope(Envelope(kind, meta, payload | fields)) + b"\n"


def test_envelopes_are_equal_if_their_lines_are() -> None:
    """Two readings of one line are equal, and another number makes another record."""
    line = b'{"v":1,"t":"x","m":{"seq":7,"ts":9},"p":{"a":[1]}}'
    assert decode_line(line) == decode_line(line)
    assert decode_line(line) != decode_line(line.replace(b"7", b"8"))
    assert decode_line(line) != line
    assert repr(decode_line(line)) == "Envelope(x, {'seq': 7, 'ts': 9}, {'a': [1]})"
