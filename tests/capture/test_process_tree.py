"""What a process and those that it started have used together."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.capture.process_tree import ProcessTree, Reading

ROOT = 0
NEW = Reading(0, 0, 0, 0, 0, 0)


@dataclass
class Running:
    """A process as the kernel knows it."""

    parent: int
    cpu: int = 0
    reaped: int = 0
    transfer: int = 0
    is_courier: bool = False

    @property
    def is_known_by_command(self) -> bool:
        """Whether its command line says that it is a courier: once it does anything."""
        return self.is_courier and self.cpu > 0

    def reading(self) -> Reading:
        """Return its counters."""
        return Reading(self.cpu, self.reaped, self.transfer, self.transfer, self.transfer, self.transfer)


class Kernel:
    """Processes that start, work and end; an ended one leaves its use to its parent, as Linux does it."""

    def __init__(self) -> None:
        self.running = {ROOT: Running(-1, cpu=100, reaped=50, transfer=30)}
        self.begun = 0
        self.children_used = 0
        self.transferred = 0
        self.ended_couriers: dict[int, Running] = {}

    def act(self, kind: str, which: int, amount: int) -> None:
        """Let one of the processes do something."""
        pid = list(self.running)[which % len(self.running)]
        if kind in ("start", "courier"):
            # What couriers start has a test of its own.
            parent = ROOT if self.running[pid].is_courier else pid
            self.begun += 1
            self.running[self.begun] = Running(parent, is_courier=kind == "courier")
        elif kind == "work":
            self.running[pid].cpu += amount
            self.running[pid].transfer += amount
            if not self.running[pid].is_courier:
                self.children_used += amount if pid != ROOT else 0
                self.transferred += amount
        elif pid != ROOT and pid not in {other.parent for other in self.running.values()}:
            ended = self.running.pop(pid)
            if ended.is_courier:
                self.ended_couriers[pid] = ended
            parent = self.running[ended.parent]
            parent.reaped += ended.cpu + ended.reaped
            parent.transfer += ended.transfer


class Observer:
    """Looks at the processes one after the other, while they go on.

    Attributes:
        spared: what it took for the use of couriers beyond what they had used.
    """

    def __init__(self, kernel: Kernel, too_careful: int = 0) -> None:
        self.kernel = kernel
        self.spared = 0
        self._too_careful = too_careful
        self._excluded: dict[int, Reading] = {}
        self.tree = ProcessTree(ROOT, kernel.running[ROOT].reading(), transfers_move=True)

    def look(self, searches: bool, meanwhile: list[tuple[str, int, int]]) -> None:
        """Look at all; *meanwhile* happens between the readings, one act at a time."""
        acts = iter(meanwhile)
        root = self.kernel.running[ROOT].reading()
        self.kernel.act(*next(acts, ("work", 0, 0)))
        new = {
            pid: running.parent for pid, running in self.kernel.running.items() if pid != ROOT and searches
        }
        readings, gone, known_couriers = {ROOT: root}, [], set()
        for pid in [*self.tree.children, *(pid for pid in new if not self.tree.knows(pid))]:
            self.kernel.act(*next(acts, ("work", 0, 0)))
            if pid in self.kernel.running:
                readings[pid] = self.kernel.running[pid].reading()
                if self.kernel.running[pid].is_known_by_command:
                    known_couriers.add(pid)
            else:
                gone.append(pid)
        for pid, parent in new.items():
            if pid in readings and not self.tree.knows(pid):
                self.tree.add(pid, parent, counted=True, before=NEW)
        for pid in known_couriers:
            if self.tree.knows(pid):
                self.tree.exclude(pid)
                self._excluded[pid] = readings[pid]
        unseen_cpu_s = self._ends_of_couriers(gone)
        self.tree.settle(readings, [pid for pid in gone if self.tree.knows(pid)], unseen_cpu_s)

    def _ends_of_couriers(self, gone: list[int]) -> dict[int, float]:
        """Return what couriers have used unseen; what nobody can tell from news of others is in the truth."""
        unseen_cpu_s = {}
        for pid, ended in list(self.kernel.ended_couriers.items()):
            if pid in self._excluded and pid not in gone:
                continue
            del self.kernel.ended_couriers[pid]
            last = self._excluded.get(pid, NEW)
            self.kernel.transferred += ended.transfer - last.read_bytes
            if pid in self._excluded:
                unseen_cpu_s[pid] = ended.cpu - last.cpu_s + self._too_careful
                self.spared += self._too_careful
            else:
                self.kernel.children_used += ended.cpu
        return unseen_cpu_s


acts = st.tuples(
    st.sampled_from(["start", "courier", "work", "work", "work", "end"]),
    st.integers(0, 20),
    st.integers(0, 9),
)
looks = st.tuples(st.lists(acts, max_size=8), st.booleans(), st.lists(acts, max_size=6))


@given(st.lists(looks, max_size=12), st.sampled_from([0, 0, 7]))
def test_every_use_counts_once_whenever_it_is_seen(history: list[tuple], too_careful: int) -> None:
    """Children come, work and end at any moment, also between two readings of one look: no sum falls, none is ahead
    of the truth, and in the end all of it has been counted, and nothing twice. Couriers among them do not count; who
    takes more for theirs than they used misses that at most."""
    kernel = Kernel()
    observer = Observer(kernel, too_careful)
    seen = (0.0, 0.0)
    for before, searches, meanwhile in history:
        for act in before:
            kernel.act(*act)
        observer.look(searches, meanwhile)
        now = (observer.tree.children_cpu_s, observer.tree.transfers[0])
        assert now[0] >= seen[0]
        assert now[1] >= seen[1]
        assert now[0] <= kernel.children_used
        assert now[1] <= kernel.transferred
        seen = now
    observer.look(True, [])
    observer.look(True, [])
    assert 0 <= kernel.children_used - observer.tree.children_cpu_s <= observer.spared
    assert set(observer.tree.transfers) == {kernel.transferred}


def tree_with_child(**arguments: bool) -> ProcessTree:
    """Return a tree whose root has a child with 10 s."""
    tree = ProcessTree("root", Reading(5, 0, 0, 0, 0, 0), transfers_move=True)
    tree.add("child", "root", counted=arguments.get("counted", True), before=NEW)
    tree.settle({"root": Reading(5, 0, 0, 0, 0, 0), "child": Reading(10, 0, 3, 0, 0, 0)}, [])
    return tree


def test_what_was_used_before_the_first_look_does_not_count() -> None:
    """The sums begin with zero."""
    tree = ProcessTree("root", Reading(5, 7, 1, 1, 1, 1), transfers_move=True)
    tree.settle({"root": Reading(6, 7, 1, 1, 1, 1)}, [])
    assert (tree.cpu_s, tree.children_cpu_s, tree.transfers) == (1, 0, (0, 0, 0, 0))


def test_a_use_that_nobody_got_stays() -> None:
    """Where ended children are not waited for, what they had used stays counted, and later growth counts whole."""
    tree = tree_with_child()
    tree.settle({"root": Reading(5, 0, 0, 0, 0, 0)}, ["child"])
    tree.settle({"root": Reading(5, 0, 0, 0, 0, 0)}, [])
    assert tree.children_cpu_s == 10
    tree.settle({"root": Reading(5, 4, 0, 0, 0, 0)}, [])
    assert tree.children_cpu_s == 14


def test_a_child_that_ends_leaves_its_own_debt_too() -> None:
    """A grandchild ends after its parent was read, and its parent before it is read again: it counts once."""
    tree = tree_with_child()
    tree.add("grandchild", "child", counted=True, before=NEW)
    root, child = Reading(5, 0, 0, 0, 0, 0), Reading(10, 0, 3, 0, 0, 0)
    tree.settle({"root": root, "child": child, "grandchild": Reading(7, 0, 0, 0, 0, 0)}, [])
    tree.settle({"root": root, "child": child}, ["grandchild"])
    tree.settle({"root": Reading(5, 17, 3, 0, 0, 0)}, ["child"])
    assert (tree.children_cpu_s, tree.transfers[0]) == (17, 3)


def test_one_that_left_the_family_counts_as_long_as_it_lives() -> None:
    """A process whose parent ended belongs to the system; its use counts on, and nobody inherits it."""
    tree = tree_with_child()
    tree.keep_only([])
    tree.settle({"root": Reading(5, 0, 0, 0, 0, 0), "child": Reading(12, 0, 3, 0, 0, 0)}, [])
    assert tree.children_cpu_s == 12
    tree.settle({"root": Reading(5, 3, 0, 0, 0, 0)}, ["child"])
    assert tree.children_cpu_s == 15, "the root waited for another one"


def test_an_excluded_child_counts_neither_alive_nor_ended() -> None:
    """Nor does what it has started; when its parent inherits its use, that is no news."""
    tree = tree_with_child(counted=False)
    tree.add("grandchild", "child", counted=True, before=NEW)
    tree.settle({"root": Reading(5, 0, 0, 0, 0, 0), "grandchild": Reading(2, 0, 0, 0, 0, 0)}, [])
    assert tree.children_cpu_s == 0
    tree.settle({"root": Reading(5, 12, 3, 0, 0, 0)}, ["child", "grandchild"])
    assert (tree.children_cpu_s, tree.transfers) == (0, (0, 0, 0, 0))


def test_what_turns_out_to_be_excluded_counts_no_more() -> None:
    """What was counted of it and of its children stays; from then on neither has news, alive or ended."""
    tree = tree_with_child()
    tree.add("grandchild", "child", counted=True, before=NEW)
    tree.exclude("child")
    assert not tree.counts("grandchild")
    root = Reading(5, 0, 0, 0, 0, 0)
    tree.settle(
        {"root": root, "child": Reading(11, 0, 3, 0, 0, 0), "grandchild": Reading(2, 0, 0, 0, 0, 0)}, []
    )
    tree.settle({"root": root, "child": Reading(11, 4, 3, 0, 0, 0)}, ["grandchild"])
    tree.settle({"root": Reading(5, 16, 3, 0, 0, 0)}, ["child"], {"child": 1})
    assert (tree.children_cpu_s, tree.transfers[0]) == (10, 3)
    tree.settle({"root": Reading(5, 19, 3, 0, 0, 0)}, [])
    assert tree.children_cpu_s == 13, "the root waited for another one"


def test_who_counts_has_no_unseen_use_that_is_taken_off() -> None:
    """What a child used after its last reading is news."""
    tree = tree_with_child()
    tree.settle({"root": Reading(5, 14, 3, 0, 0, 0)}, ["child"], {"child": 100})
    assert tree.children_cpu_s == 14


def test_a_counter_that_is_unknown_for_a_while_goes_on_from_where_it_was() -> None:
    """What was used meanwhile counts once it is known again."""
    tree = tree_with_child()
    tree.settle({"root": Reading(None, None, 0, 0, 0, 0), "child": None}, [])
    assert (tree.cpu_s, tree.children_cpu_s) == (0, 10)
    tree.settle({"root": Reading(6, 0, 0, 0, 0, 0), "child": Reading(11, 0, None, 0, 0, 0)}, [])
    assert (tree.cpu_s, tree.children_cpu_s, tree.transfers[0]) == (1, 11, 3)


def test_a_counter_that_falls_is_no_reading() -> None:
    """A sum neither falls with it nor counts the way back up."""
    tree = tree_with_child()
    for cpu_s in (4, 10):
        tree.settle({"root": Reading(5, 0, 0, 0, 0, 0), "child": Reading(cpu_s, 0, 3, 0, 0, 0)}, [])
        assert tree.children_cpu_s == 10


def test_where_transfers_do_not_move_the_root_owes_none() -> None:
    """On systems where a child's transfers end with it, the root's own growth counts whole."""
    tree = ProcessTree("root", NEW, transfers_move=False)
    tree.add("child", "root", counted=True, before=NEW)
    tree.settle({"root": NEW, "child": Reading(0, 0, 100, 0, 0, 0)}, [])
    tree.settle({"root": Reading(0, 0, 40, 0, 0, 0)}, ["child"])
    assert tree.transfers[0] == 140
