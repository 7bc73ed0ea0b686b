"""Evolution as what it is: modifications, populations, lineage. Pure functions and streaming aggregates."""

from lezea_mlops.evolution.folds import Folds
from lezea_mlops.evolution.modifications import ModificationCounts, tree_statistics, with_ids
from lezea_mlops.evolution.population import PopulationHistory, scores_by_individual

__all__ = [
    "Folds",
    "ModificationCounts",
    "PopulationHistory",
    "scores_by_individual",
    "tree_statistics",
    "with_ids",
]
