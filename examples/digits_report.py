"""What the digits example prints at the end of a run: its result, what was tried, and where to look at it."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from digits_evolution import Evolution
from lezea_mlops.config import load_settings
from lezea_mlops.tracker import ExperimentTracker


def print_result(
    evolution: Evolution, summary: dict[str, Any], recommendations: list[dict[str, Any]]
) -> None:
    """Print the champion, what was used, what became of the modifications, and what the tracker recommends."""
    first, last = evolution.champions[0], evolution.champions[-1]
    print(f"\nChampion   {last.tasker.network_id}: {last.network}")
    print(f"Accuracy   test {first.test.accuracy:.3f} -> {last.test.accuracy:.3f}, ", end="")
    print(f"validation {first.val.accuracy:.3f} -> {last.val.accuracy:.3f}")
    print("\n".join(_cost(summary)) + "\n")
    print("\n".join(_table(evolution)))
    print("\nRecommendations" if recommendations else "\nNo recommendations")
    for rule, count in Counter(entry["rule"] for entry in recommendations).items():
        entry = next(entry for entry in recommendations if entry["rule"] == rule)
        more = f" (and {count - 1} more like it)" if count > 1 else ""
        print(f"  [{entry['severity']}] {rule}: {entry['message']}{more}")


def _cost(summary: dict[str, Any]) -> list[str]:
    """What the run used and cost, and what of it went into modifications that were accepted, as lines of text."""
    used, costs = summary["resources"], summary["costs"]
    unattributed_s = 3600 * summary["unattributed"]["core_hours"] if "unattributed" in summary else 0.0
    lines = [
        f"Used       {3600 * used['core_hours']:.1f} CPU seconds ({unattributed_s:.1f} of them by no component), "
        f"{used['gb_hours'] * 60:.2f} GB-minutes of memory"
    ]
    if costs["eur"] is None:
        return [*lines, "Cost       unknown: no prices are set"]
    kinds = ", ".join(f"{kind} {eur:.3g}" for kind, eur in costs["parts"].items() if eur)
    lines.append(f"Cost       {costs['eur']:.3g} EUR: {kinds}")
    verdicts = costs["modifications"]
    for verdict in ("accepted", "rejected"):
        count, eur = verdicts[verdict]["count"], verdicts[verdict]["eur"]
        lines.append(f"           {eur:.3g} EUR for trying {count} {verdict} modifications")
    if verdicts["per_accepted_eur"] is not None:
        lines.append(
            f"           {verdicts['per_accepted_eur']:.3g} EUR for each that was accepted, all tries counted"
        )
    return lines


def _table(evolution: Evolution) -> list[str]:
    """What was tried, by kind and by builder, as lines of text."""
    lines = [f"{'modification':22}{'tried':>7}{'accepted':>10}{'mean reward':>13}"]
    used = [(kind, tally) for kind, tally in evolution.tallies.items() if tally.tried]
    for kind, tally in sorted(used, key=lambda item: -item[1].mean_reward):
        lines.append(f"{kind:22}{tally.tried:7}{tally.accepted:10}{tally.mean_reward:+13.4f}")
    lines += ["", f"{'builder':22}{'tried':>7}{'mean reward':>23}   prefers in the end"]
    for builder in sorted(evolution.builders.values(), key=lambda builder: -builder.mean_reward):
        name = f"{builder.builder_id} ({builder.style})"
        favourite = max(builder.preferences, key=builder.preferences.__getitem__)
        lines.append(f"{name:22}{len(builder.rewards):7}{builder.mean_reward:+23.4f}   {favourite}")
    return lines


def print_ways_to_look(tracker: ExperimentTracker, champion_id: str) -> None:
    """Print the commands that show this run, as they can be typed from any folder."""
    run_dir = Path(tracker.run_dir).resolve()
    with (run_dir / "events.jsonl").open("rb") as lines:
        events = sum(1 for _ in lines)
    settings = load_settings()
    lezea, run = _program("lezea"), shlex.quote(str(run_dir))
    print(f"\n{events} events in {run_dir / 'events.jsonl'}")
    print("Which modifications were tried, and those that made the champion:")
    print(f"  {lezea} tree {run}")
    print(f"  {lezea} lineage {run} {champion_id}")
    print("Curves, files, and the page of the tree (Artifacts, evolution/tree.html):")
    if settings.mlflow_tracking_uri.startswith("http"):
        print(f"  {tracker.mlflow_url or 'on the MLflow server, once it has the run'}")
    else:
        print(f"  {_program('mlflow')} ui --backend-store-uri {shlex.quote(settings.mlflow_tracking_uri)}")
    if settings.mongo_uri is None:
        print("LEZEA_MONGO_URI names no MongoDB. Once it does, the run is delivered there by:")
        print(f"  {lezea} sync {run}")
    else:
        print("The documents in MongoDB, compared with the journal:")
        print(f"  {lezea} audit {run}")


def _program(name: str) -> str:
    """How to call a program of this Python: by its name where that finds it, else by its path."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if not beside.exists() or found == str(beside) else shlex.quote(str(beside))
