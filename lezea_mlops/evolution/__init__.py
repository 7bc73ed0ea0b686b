"""Evolution as what it is: modifications, populations, lineage. Pure functions and streaming aggregates."""

from lezea_mlops.evolution.documents import read_evolution_from_mongo
from lezea_mlops.evolution.export import to_alife_csv, to_dot, to_node_link
from lezea_mlops.evolution.folds import Folds
from lezea_mlops.evolution.genealogy import Problem
from lezea_mlops.evolution.graph import Moment
from lezea_mlops.evolution.history import Evolution
from lezea_mlops.evolution.modifications import ModificationCounts, tree_statistics, with_ids
from lezea_mlops.evolution.mongo_queries import MongoQueries
from lezea_mlops.evolution.networks import Network, NetworkLineage
from lezea_mlops.evolution.population import PopulationHistory, scores_by_individual
from lezea_mlops.evolution.queries import AcceptanceRow, JournalQueries, Queries
from lezea_mlops.evolution.statistics import StreamingStatistics, scope_name
from lezea_mlops.evolution.tree import ModificationTree, Node

__all__ = [
    "AcceptanceRow",
    "Evolution",
    "Folds",
    "JournalQueries",
    "ModificationCounts",
    "ModificationTree",
    "Moment",
    "MongoQueries",
    "Network",
    "NetworkLineage",
    "Node",
    "PopulationHistory",
    "Problem",
    "Queries",
    "StreamingStatistics",
    "read_evolution_from_mongo",
    "scope_name",
    "scores_by_individual",
    "to_alife_csv",
    "to_dot",
    "to_node_link",
    "tree_statistics",
    "with_ids",
]
