"""What modifications cost: uses and verdicts find each other, whichever comes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

from lezea_mlops._bounded import BoundedTable, stored_count, stored_step, stored_text
from lezea_mlops.accounting.quantities import Quantities, short_text
from lezea_mlops.accounting.windows import Target
from lezea_mlops.events import as_id, read_modification

LEVEL = "modification"
NETWORK_LEVEL = "network"
VERDICTS = ACCEPTED, REJECTED, UNDECIDED = "accepted", "rejected", "undecided"
# Operators beyond so many are counted under one.
MAX_OPERATORS = 100
OTHER_OPERATORS = "(other types)"

Waiting: TypeAlias = "OrderedDict[str, Quantities]"
# By operator and verdict: how many modifications, and what they used.
Sums: TypeAlias = "dict[tuple[str, str], Sum]"


# So many modifications are remembered that named the same component or network.
MAX_CLAIMS = 8

# Which modification named a component or a network, and when it was told (UTC microseconds).
Claim: TypeAlias = "tuple[str, int]"


class Known:
    """One modification: its operator, its verdict, and what it used.

    Attributes:
        names: the component and the network that it named last.
    """

    __slots__ = ("names", "operator", "used", "verdict")

    def __init__(self, operator: str, verdict: str) -> None:
        self.operator, self.verdict = operator, verdict
        self.names: tuple[str, ...] = ()
        self.used: Quantities | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Operator and verdict, under which it is counted."""
        return self.operator, self.verdict

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restored``."""
        used = None if self.used is None else self.used.state()
        return [self.operator, self.verdict, used, list(self.names)]

    @classmethod
    def restored(cls, state: Any) -> Known:
        """Return what goes on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        operator, verdict, used, names = state
        known = cls(stored_text(operator), _stored_verdict(verdict))
        known.used = None if used is None else Quantities.restored(used)
        known.names = tuple(map(stored_text, names))
        return known


class Sum:
    """Modifications of one operator and verdict: how many, and what they used."""

    __slots__ = ("count", "used")

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.used = Quantities()


class ModificationUse:
    """What modifications used, by operator and verdict.

    A use belongs to the modification in whose scope it was; else to the one whose id the component bears; else, of
    those that name the component or the network, to the next that is told, or to the last where no further comes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: BoundedTable[str, Known] = BoundedTable(lambda: Known("", UNDECIDED), limit)
        # No modification is forgotten later than what it named.
        self._claims: BoundedTable[str, list[Claim]] = BoundedTable(list, 2 * limit)
        # What was used and belongs to no modification yet, by scope and by component or network; longest unused first.
        self._waiting_scopes: Waiting = OrderedDict()
        self._waiting: Waiting = OrderedDict()
        self._sums: Sums = {}
        self._operators: dict[str, None] = {}
        self._nameless = 0

    # ------------------------------------------------------------------ what was used

    def use(self, used: Quantities, target: Target, since_us: int) -> None:
        """Take what was used for *target* from *since_us* (UTC microseconds) on."""
        network = None
        for level, identity in reversed(target.scope):
            if level == LEVEL:
                self._use_in_scope(identity, used)
                return
            if level == NETWORK_LEVEL and network is None:
                network = identity
        component = target.component_id
        if component is not None and component in self._known:
            self._add(self._known[component], used)
            return
        # A component that is a network, and the scope of this network, mean the same.
        name = component
        if network is not None and (name is None or name not in self._claims):
            name = network
        if name is None:
            return
        if name in self._claims:
            # The modification was told at once, and what it used when its window, or a sample, was over.
            claim = next((claim for claim in self._claims[name] if since_us <= claim[1]), None)
            if claim is not None and claim[0] in self._known:
                self._add(self._known[claim[0]], used)
                return
        if len(self._waiting) >= self._limit and name not in self._waiting:
            self._hand_over(*self._waiting.popitem(last=False))
        _put(self._waiting, name, used)

    def _use_in_scope(self, identity: str, used: Quantities) -> None:
        if identity in self._known:
            self._add(self._known[identity], used)
            return
        if len(self._waiting_scopes) >= self._limit and identity not in self._waiting_scopes:
            self._waiting_scopes.popitem(last=False)
        _put(self._waiting_scopes, identity, used)

    def _hand_over(self, name: str, used: Quantities) -> None:
        """Give what waits no longer to the modification that named it last, if there is one."""
        if name in self._claims:
            identity, _at_us = self._claims[name][-1]
            if identity in self._known:
                self._add(self._known[identity], used)

    def _add(self, known: Known, used: Quantities) -> None:
        """Count a use for a modification."""
        if known.used is None:
            known.used = Quantities()
        known.used.add(used)
        self._sum(known.key).used.add(used)

    # ------------------------------------------------------------------ what was decided

    def observe(self, modifications: Any, ts: int) -> None:
        """Take the modifications of one logged tree, told at *ts* (UTC microseconds)."""
        if not isinstance(modifications, list):
            return
        told = [modification for modification in modifications if isinstance(modification, Mapping)]
        # Where nothing was used, those that would be forgotten within this call are counted, and that is all.
        waits = self._waiting or self._waiting_scopes
        only_counted = 0 if waits else max(0, len(told) - self._limit)
        for modification in told[:only_counted]:
            self._sum(self._key(modification)).count += 1
        for modification in told[only_counted:]:
            self._register(modification, ts)

    def _register(self, modification: Mapping[str, Any], ts: int) -> None:
        key = self._key(modification)
        identity = _name(modification.get("id"))
        if identity is None:
            self._nameless += 1
            identity = f"\0{self._nameless}"
        if identity in self._known:
            known = self._known[identity]
            self._change(known, key)
        else:
            if len(self._known) >= self._limit:
                self._forget(self._known.pop_oldest())
            known = self._known[identity] = Known(*key)
            self._sum(key).count += 1
            if identity in self._waiting_scopes:
                self._add(known, self._waiting_scopes.pop(identity))
            if identity in self._waiting:
                self._add(known, self._waiting.pop(identity))
        component = _name(modification.get("component_id"))
        if component is not None:
            self._claim(known, component, (identity, ts))
        network = _name(modification.get("target")) or _name(modification.get("network_id"))
        if network is not None and network != component:
            self._claim(known, network, (identity, ts))
        known.names = tuple(name for name in (component, network) if name is not None)

    def _forget(self, known: Known) -> None:
        """Let a modification have what waits under the names that it gave last: nobody could have it later."""
        for name in known.names:
            if name not in self._waiting or name not in self._claims:
                continue
            identity, _at_us = self._claims[name][-1]
            if identity not in self._known:
                self._add(known, self._waiting.pop(name))

    def _key(self, modification: Mapping[str, Any]) -> tuple[str, str]:
        operator = modification.get("type")
        if type(operator) is not str:
            operator = read_modification(modification, "").type
        name = short_text(operator) or "None"
        if name not in self._operators:
            if len(self._operators) >= min(MAX_OPERATORS, self._limit):
                name = OTHER_OPERATORS
            else:
                self._operators[name] = None
        decision = modification.get("accepted")
        return name, ACCEPTED if decision is True else REJECTED if decision is False else UNDECIDED

    def _claim(self, known: Known, name: str, claim: Claim) -> None:
        """Let a modification have what waits under a name that others may give too."""
        if name in self._waiting:
            self._add(known, self._waiting.pop(name))
        claims = self._claims[name]
        claims.append(claim)
        del claims[:-MAX_CLAIMS]

    def _change(self, known: Known, key: tuple[str, str]) -> None:
        """Count a modification under another operator or verdict."""
        if known.key == key:
            return
        before, after = self._sum(known.key), self._sum(key)
        before.count -= 1
        after.count += 1
        if known.used is not None:
            before.used.take_away(known.used)
            after.used.add(known.used)
        known.operator, known.verdict = key

    def _sum(self, key: tuple[str, str]) -> Sum:
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = Sum()
        return found

    # ------------------------------------------------------------------ what is told

    def sums(self) -> Sums:
        """Return by operator and verdict how many modifications there were, and what they used until now."""
        sums: Sums = {}
        for key, found in self._sums.items():
            sums[key] = Sum(found.count)
            sums[key].used.add(found.used)
        if not self._waiting:
            return sums
        # Copies, for asking a table counts as a use.
        claims, known_by_id = dict(self._claims.items()), dict(self._known.items())
        for name, used in self._waiting.items():
            if name not in claims:
                continue
            known = known_by_id.get(claims[name][-1][0])
            if known is not None:
                sums[known.key].used.add(used)
        return sums

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        return {
            "known": self._known.state(Known.state), "claims": self._claims.state(_claims_state),
            "waiting_scopes": [[name, used.state()] for name, used in self._waiting_scopes.items()],
            "waiting": [[name, used.state()] for name, used in self._waiting.items()],
            "sums": [[*key, found.count, found.used.state()] for key, found in self._sums.items()],
            "operators": list(self._operators), "nameless": self._nameless,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self._known.restore(state["known"], stored_text, Known.restored)
        self._claims.restore(state["claims"], stored_text, _stored_claims)
        self._waiting_scopes, self._waiting = (
            OrderedDict((stored_text(name), Quantities.restored(used)) for name, used in state[waiting])
            for waiting in ("waiting_scopes", "waiting")
        )
        self._sums = {}
        for operator, verdict, count, used in state["sums"]:
            found = self._sum((stored_text(operator), _stored_verdict(verdict)))
            found.count = stored_count(count)
            found.used.put_back(used)
        self._operators = dict.fromkeys(map(stored_text, state["operators"]))
        self._nameless = stored_count(state["nameless"])


def _put(waiting: Waiting, name: str, used: Quantities) -> None:
    if name in waiting:
        waiting.move_to_end(name)
    else:
        waiting[name] = Quantities()
    waiting[name].add(used)


def _name(value: Any) -> str | None:
    """Return the text of an id; None if there is none."""
    return short_text(value) or None if type(value) is str else short_text(as_id(value))


def _claims_state(claims: list[Claim]) -> list[Any]:
    return [list(claim) for claim in claims]


def _stored_claims(state: Any) -> list[Claim]:
    claims = [(stored_text(identity), stored_step(at_us)) for identity, at_us in state]
    if not claims:
        raise ValueError("expected a modification that named it")
    return claims


def _stored_verdict(value: Any) -> str:
    if value in VERDICTS:
        return stored_text(value)
    raise ValueError(f"expected a verdict, found {value!r:.80}")
