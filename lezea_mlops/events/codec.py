"""Events to and from one line of strict JSON.

A line is ``{"v":1,"t":TYPE,"m":{"seq","ts","wid","att"},"p":{"run_id", "scope"?, …}}`` and a newline. The encoder and
the decoder are msgspec's where it is installed, else the pure-Python ones in ``plain``: the same bytes, as strict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lezea_mlops.events.base import Event, UnknownEvent
from lezea_mlops.events.catalog import ALIASES, CLASS_OF_TYPE
from lezea_mlops.events.plain import decode_plain, encode_plain

encode_json: Callable[[Any], bytes] = encode_plain
_decode_json: Callable[[bytes], Any] = decode_plain
try:
    import msgspec
except ImportError:  # a bare CPython reads and writes journals too
    _DECODE_ERRORS: tuple[type[Exception], ...] = (ValueError, RecursionError)
else:
    encode_json = msgspec.json.Encoder().encode
    _decode_json = msgspec.json.Decoder().decode
    _DECODE_ERRORS = (msgspec.DecodeError, ValueError, RecursionError)

MAX_LINE_BYTES = 8 * 1024 * 1024
FORMAT_VERSION = 1


class Envelope:
    """One record as it travels: type, metadata ``m`` and payload ``p``; unknown parts are kept.

    Attributes:
        size_bytes: length of the line that it was read from; 0 if it was not read from one.
    """

    __slots__ = ("type", "meta", "payload", "version", "size_bytes")

    def __init__(
        self,
        type: str,
        meta: Mapping[str, Any],
        payload: Mapping[str, Any],
        version: int = FORMAT_VERSION,
        size_bytes: int = 0,
    ) -> None:
        self.type = type
        self.meta = meta
        self.payload = payload
        self.version = version
        self.size_bytes = size_bytes

    @property
    def seq(self) -> int:
        """The number of this record among those of its writer, from 1."""
        return self.meta["seq"]  # type: ignore[no-any-return]

    @property
    def ts(self) -> int:
        """UTC microseconds since the Unix epoch."""
        return self.meta["ts"]  # type: ignore[no-any-return]

    @property
    def wid(self) -> str:
        """The writer's name."""
        return self.meta.get("wid") or "main"

    @property
    def att(self) -> int:
        """The attempt, from 1."""
        return self.meta.get("att") or 1

    @property
    def run_id(self) -> str:
        """The experiment id."""
        return self.payload.get("run_id", "")  # type: ignore[no-any-return]

    @property
    def scope(self) -> Sequence[Sequence[str]]:
        """The scopes it was logged in, outermost first; none if the payload says something else."""
        scope = self.payload.get("scope") or []
        return scope if isinstance(scope, (list, tuple)) and all(map(_is_pair, scope)) else []

    @property
    def order_key(self) -> tuple[int, int, str, int]:
        """Where it stands among the records of all writers."""
        return (self.att, self.ts, self.wid, self.seq)

    @property
    def event(self) -> Event:
        """The payload as a typed event; a type that is not known here comes as ``UnknownEvent``."""
        fields = {name: value for name, value in self.payload.items() if name != "run_id"}
        cls = CLASS_OF_TYPE.get(self.type)
        return UnknownEvent.named(self.type, fields) if cls is None else cls.of(fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Envelope) and encode_envelope(self) == encode_envelope(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Envelope({self.type}, {dict(self.meta)}, {dict(self.payload)})"


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(part, str) for part in pair)


class NotARecord(ValueError):
    """A line is no record of the journal; the text says why."""


def decode_line(line: bytes) -> Envelope:
    """Decode one line, with or without its newline.

    Raises:
        NotARecord: the line is not JSON, or lacks a part of the envelope.
    """
    try:
        whole = _decode_json(line)
    except _DECODE_ERRORS as error:
        raise NotARecord(f"not JSON: {error}") from None
    try:
        kind, meta, payload, version = whole["t"], whole["m"], whole["p"], whole["v"]
        valid = (
            type(meta["seq"]) is int
            and type(meta["ts"]) is int
            and type(kind) is str
            and type(payload) is dict
            and type(version) is int
            and type(meta.get("wid") or "") is str
            and type(meta.get("att") or 1) is int
        )
    except (KeyError, TypeError):
        raise NotARecord("not an envelope: v, t, m.seq, m.ts and p are needed") from None
    if not valid:
        raise NotARecord("not an envelope: a part has the wrong type")
    return Envelope(ALIASES.get(kind, kind), meta, payload, version, len(line))


def encode_envelope(envelope: Envelope) -> bytes:
    """Encode a whole envelope as one line without its newline."""
    return encode_json({"v": envelope.version, "t": envelope.type, "m": envelope.meta, "p": envelope.payload})


def line_template(
    type_name: str, *, run_id: str, wid: str, att: int, scope: Any = None, **flags: bool
) -> bytes:
    """Return a bytes template of a line; fill it with ``% (seq, ts, tail)``.

    All that stays the same from call to call is encoded once, here. The tail is the encoded fields of an event
    without their opening brace; there must be one field at least.

    Args:
        type_name: the event type.
        run_id: the experiment id.
        wid: the writer's name.
        att: the attempt, from 1.
        scope: the scopes as [level, id] pairs; empty or None for none.
        flags: further true metadata, ``late`` or ``auto``.
    """
    meta = encode_json({"wid": wid, "att": att} | {name: True for name, on in flags.items() if on})
    payload = encode_json({"run_id": run_id} | ({"scope": scope} if scope else {}))
    head = b'{"v":1,"t":' + encode_json(type_name) + b',"m":{"seq":'
    fixed = [part.replace(b"%", b"%%") for part in (head, meta[1:], payload[:-1])]
    return fixed[0] + b'%d,"ts":%d,' + fixed[1] + b',"p":' + fixed[2] + b",%b}\n"
