"""``lezea costs``: what a run used, what it cost, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lezea_mlops.accounting import Accounts
from lezea_mlops.cli import app
from lezea_mlops.events import Envelope, encode_envelope
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.tracker import ExperimentTracker

RATES = {
    "core_hour_eur": 0.5,
    "gb_hour_eur": 0.25,
    "fixed_eur": 2.0,
    "core_watts": 10.0,
    "co2_g_per_kwh": 100.0,
}


def costs(*arguments: object) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, ["costs", *map(str, arguments)])


def report(*arguments: object) -> dict[str, Any]:
    """Return what programs get."""
    found = costs(*arguments, "--json")
    assert (found.exit_code, found.stderr) == (0, "")
    return dict(json.loads(found.stdout, parse_constant=pytest.fail))


def add_writer(run: Path, wid: str, *records: tuple[str, dict[str, Any]]) -> None:
    """Give a run a further journal, with a record each ten minutes."""
    lines = []
    for seq, (kind, payload) in enumerate(records, start=1):
        meta = {"seq": seq, "ts": seq * 600_000_000, "wid": wid, "att": 1}
        lines.append(encode_envelope(Envelope(kind, meta, {"run_id": run.name} | payload)) + b"\n")
    RunFolder(run).journal(wid).write_bytes(b"".join(lines))


def rows(result: Result) -> list[str]:
    """Return the rows that were printed, without the space at their ends."""
    assert result.exit_code == 0, result.output
    return [row.rstrip() for row in result.stdout.splitlines()]


def try_out(
    tracker: ExperimentTracker, step: int, identity: str, cpu_hours: float, **modification: Any
) -> None:
    """Use so much for a modification, and log what became of it."""
    with tracker.scope("modification", identity):
        tracker.log_resource_cost(cpu_hours=cpu_hours)
    tracker.log_modification_tree(step, [{"id": identity, **modification}])


def search(**settings: Any) -> Path:
    """Return a run of modifications: ``a`` led to ``c``, which lives; ``b`` was accepted and died, ``d`` rejected."""
    with ExperimentTracker(
        "Search", experiment_id="searched", settings={"mode": "offline", **settings}
    ) as tracker:
        for network, parents in {"n0": [], "na": ["n0"], "nb": ["n0"], "nc": ["na"]}.items():
            tracker.register_network(network, "tasker", parent_ids=parents)
        try_out(tracker, 1, "a", 1.0, type="widen", accepted=True, target="na", score=0.25)
        try_out(tracker, 1, "b", 2.0, type="widen", accepted=True, target="nb", score=0.125)
        tracker.log_population_snapshot(2, 0, 1, fitness_scores={"na": 0.25, "nb": 0.125})
        try_out(tracker, 2, "c", 4.0, type="prune", accepted=True, target="nc", score=0.5)
        try_out(tracker, 2, "d", 8.0, type="prune", accepted=False, score=0.1)
        tracker.log_population_snapshot(1, 0, 2, fitness_scores={"nc": 0.5})
    return Path(tracker.run_dir)


def test_a_person_sees_what_it_came_to_and_what_came_of_it() -> None:
    """The sum with its parts, hours, CO2, budgets, and accepted against rejected with what the dead branches cost."""
    run = search(rates=RATES, budget_eur=19.0)
    assert rows(costs(run))[:21] == [
        "searched: 9.50 EUR, 1 attempt",
        "cpu 7.50; fixed 2.00",
        "",
        "              core-hours  GB-hours  GPU-hours  GPU held  IO GB   kWh",
        "in all                15         0          0         0      0  0.15",
        "unattributed           0         0          0         0      0     0",
        "15 g CO2",
        "",
        "budget of    EUR  spent",
        "run        19.00   9.50  50%",
        "",
        "modifications        count   EUR  core-hours  GPU-hours",
        "accepted                 3  3.50           7          0",
        "  led to what lives      2  2.50           5          0",
        "  dead branches          1  1.00           2          0",
        "rejected                 1  4.00           8          0",
        "each accepted one cost 2.50 EUR, with what was rejected",
        "",
        "scope            EUR  core-hours  GB-hours  GPU-hours  GPU held  IO GB   kWh",
        "modification:d  4.00           8         0          0         0      0  0.08",
        "modification:c  2.00           4         0          0         0      0  0.04",
    ]


def test_modifications_that_nothing_belongs_to_are_not_taken_for_free_ones() -> None:
    """It is said how a use comes to belong to one; where any use does, nothing is said."""
    with ExperimentTracker("Apart", experiment_id="apart", settings={"mode": "offline"}) as tracker:
        tracker.log_resource_cost(cpu_hours=2.0)
        tracker.log_modification_tree(1, [{"id": "a", "type": "widen", "accepted": True}])
    hint = "no core-hour and no GPU-hour belongs to a modification: measure inside tracker.scope('modification', id)"
    assert any(hint in row for row in rows(costs("apart")))
    settings = {"mode": "offline", "rates": {"gb_hour_eur": 1.0}}
    with ExperimentTracker("Memory", experiment_id="held", settings=settings) as tracker:
        for _ in range(2):
            with tracker.scope("modification", "a"):
                tracker.log_component_resources("trial", memory_mb=1e9)
        tracker.log_modification_tree(1, [{"id": "a", "type": "widen", "accepted": True}])
    assert not any(hint in row for row in rows(costs("held")))
    search()
    assert not any(hint in row for row in rows(costs("searched")))


def test_the_run_that_is_named_is_found_as_by_the_other_commands() -> None:
    """By its id, the beginning of it, or its folder; one that is not there is said, with exit code 2."""
    run = search()
    assert costs("searched").stdout == costs("sear").stdout == costs(run).stdout
    missing = costs("nowhere")
    assert (missing.exit_code, "is no run in" in " ".join(missing.stderr.split())) == (2, True)


def test_without_prices_there_are_hours() -> None:
    """They are said to be all there is, and modifications are compared by them."""
    shown = rows(costs(search()))
    assert shown[:2] == ["searched: no prices are set, 1 attempt", "hours only; --rates FILE prices the run"]
    assert "modifications        count  core-hours  GPU-hours" in shown
    assert "  dead branches          1           2          0" in shown
    assert "prune            1         1                    4                    8" in shown
    assert not [row for row in shown[1:] if "EUR" in row]


def test_a_run_is_priced_anew_with_another_file(tmp_path: Path) -> None:
    """The file alone counts, whatever the run recorded; it says so."""
    file = tmp_path / "dear.yaml"
    file.write_text("core_hour_eur: 5\n")
    run = search(rates=RATES)
    assert rows(costs(run, "--rates", file))[:2] == [
        f"searched at the prices of {file}: 75.00 EUR, 1 attempt",
        "cpu 75.00",
    ]
    found = report(run, "--rates", file)
    assert (found["rates"], found["costs"]["eur"]) == ({"core_hour_eur": 5.0}, 75.0)
    assert report(run)["costs"]["eur"] == 9.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("core_hour_eur: cheap\n", "core_hour_eur is 'cheap'"),
        ("core_hour_eur: -1\n", "core_hour_eur is -1"),
        ("core_hour_eur: .nan\n", "core_hour_eur is nan"),
        ("core_hours_eur: 1\n", "did you mean 'core_hour_eur'?"),
        (None, "cannot be read"),
    ],
)
def test_a_file_of_prices_that_is_wrong_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    """It is named with what is wrong in it; exit code 2, and nothing on the standard output."""
    file = tmp_path / "bad.yaml"
    if content is not None:
        file.write_text(content)
    result = costs(search(), "--rates", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert str(file) in result.stderr
    assert said in result.stderr


def test_one_table_with_as_many_rows_as_are_wanted() -> None:
    """Those that cost most come first, and how many are left out is said."""
    run = search(rates=RATES)
    assert rows(costs(run, "--by", "scope", "--top", 1))[2:] == [
        "",
        "scope            EUR  core-hours  GB-hours  GPU-hours  GPU held  IO GB   kWh",
        "modification:d  4.00           8         0          0         0      0  0.08",
        "the first 1 of 4; --top shows more",
    ]
    assert rows(costs(run, "--by", "operator"))[2:] == [
        "",
        "operator  accepted  rejected  EUR accepted  EUR rejected",
        "prune            1         1          2.00          4.00",
        "widen            2         0          1.50          0.00",
    ]


def test_a_table_of_nothing_says_so() -> None:
    """Also of a run that logged nothing at all."""
    with ExperimentTracker("Empty", settings={"mode": "offline"}) as tracker:
        pass
    shown = rows(costs(tracker.run_dir, "--by", "component"))
    assert shown[-1] == "no component has used anything that was measured or logged"
    assert costs(tracker.run_dir).exit_code == 0


def test_programs_get_the_whole_tables_or_an_error() -> None:
    """What accounts tell, unchanged; cutting them is for the terminal."""
    run = search(rates=RATES)
    accounts = Accounts()
    for record in read_run(run):
        scope = tuple((level, identity) for level, identity in record.scope)
        accounts.observe(record.type, record.payload, scope, record.ts, attempt=record.att)
    found = report(run)
    assert found["resources"] == accounts.as_dict()
    assert found["costs"] == accounts.costs()
    assert (found["run_id"], found["attempts"], found["rates"]) == ("searched", 1, RATES)
    for cut in (["--by", "type"], ["--top", 3]):
        result = costs(run, "--json", *cut)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--json has the whole tables" in result.stderr


def test_what_components_measured_stands_in_their_tables() -> None:
    """By component with its type, by type and by scope."""
    with ExperimentTracker(
        "Measured", settings={"mode": "offline", "rates": {"core_hour_eur": 1e6}}
    ) as tracker:
        with tracker.builder_scope("42"), tracker.measure("tasker#0", "tasker"):
            sum(number * number for number in range(100_000))
        with tracker.measure("builder#1"):
            pass
    found = report(tracker.run_dir)
    used = found["resources"]["components"]["tasker#0"]["core_hours"]
    assert used > 0
    assert found["costs"]["components"]["tasker#0"] == pytest.approx(1e6 * used)
    assert rows(costs(tracker.run_dir, "--by", "component"))[4].endswith("  tasker")
    assert [row.split()[0] for row in rows(costs(tracker.run_dir, "--by", "type"))[4:]] == [
        "tasker",
        "untyped",
    ]
    assert rows(costs(tracker.run_dir, "--by", "scope"))[4].startswith("builder:42 ")


def test_what_a_later_attempt_used_is_added() -> None:
    """Also where the run had no prices at first; the newest ones count for all of it."""
    run = search()
    settings = {"mode": "offline", "rates": {"core_hour_eur": 1.0}}
    with (
        ExperimentTracker("Search", resume="searched", settings=settings) as tracker,
        tracker.builder_scope("42"),
    ):
        tracker.log_resource_cost(cpu_hours=1.0)
    assert rows(costs(run))[0] == "searched: 16.00 EUR, 2 attempts"


def test_what_the_business_states_stands_beside_what_was_computed() -> None:
    """It changes nothing in the sum."""
    with ExperimentTracker("Stated", settings={"mode": "offline", "rates": RATES}) as tracker:
        tracker.log_business_metrics(resource_cost_eur=8.73)
    assert rows(costs(tracker.run_dir))[1:3] == [
        "fixed 2.00",
        "8.73 EUR were stated by log_business_metrics",
    ]


def test_a_gpu_without_a_price_is_named() -> None:
    """It is in the hours and not in the sum."""
    run = search(rates={"gpu_hour_eur": {"NVIDIA L4": 0.5}})
    gpus = [
        {"uuid": name, "name": name, "util_percent": 50, "held": True} for name in ("NVIDIA L4", "Odd X1")
    ]
    sample = {"writer": "main", "pid": 1, "period_s": 600.0, "process": {}, "gpus": gpus}
    add_writer(run, "sampler", *[("resource", {"component_id": "process", "sample": sample})] * 7)
    shown = rows(costs(run))
    assert shown[0].startswith("searched: 0.50 EUR")
    assert "used without a price, and not in the sum: GPU Odd X1" in shown
    assert "GPU Odd X1: 0.5 hours used, 1 held" in shown


def test_records_that_no_tracker_writes_do_no_harm() -> None:
    """Prices, budgets, trees and scopes of any shape are passed over, and the rest is added up."""
    run = search(rates=RATES)
    odd: list[tuple[str, dict[str, Any]]] = [
        ("rates", {"rates": "dear"}),
        ("budget", {"branch": ["run"], "budget_eur": "all of it"}),
        ("modification_tree", {"step": 3, "modifications": "many"}),
        (
            "modification_tree",
            {"step": 3, "modifications": [None, 7, {"type": {"a": 1}}, {"accepted": "yes"}]},
        ),
        ("resource_cost", {"cpu_hours": "NaN"}),
        ("resource_use", {"uses": [None], "process": 7}),
        ("resource_cost", {"cpu_hours": 0, "scope": [["builder"], 7]}),
    ]
    add_writer(run, "odd", *odd)
    assert report(run)["costs"]["eur"] == 9.5
    assert costs(run).exit_code == 0


def test_a_run_that_goes_on_costs_what_it_has_cost_so_far() -> None:
    """Its journal is read as far as it is written."""
    tracker = ExperimentTracker("On", settings={"mode": "offline", "rates": RATES}, auto_start=True)
    tracker.log_resource_cost(cpu_hours=4.0)
    assert rows(costs(tracker.run_dir))[0].endswith(": 4.00 EUR, 1 attempt")
    tracker.end()


def test_names_do_not_command_the_terminal() -> None:
    """What a component calls itself is text on one line."""
    with ExperimentTracker("Names", settings={"mode": "offline"}) as tracker:
        tracker.log_component_resources("a\x1b[2Jb\nc", "t\ny", cpu_percent=1.0)
    shown = "\n".join(rows(costs(tracker.run_dir, "--by", "component")))
    assert "\x1b" not in shown
    assert "a�[2Jb�c" in shown
