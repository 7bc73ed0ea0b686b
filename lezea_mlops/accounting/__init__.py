"""Accounts of resources and costs: streaming aggregates over events."""

from lezea_mlops.accounting.costs import CostTotals
from lezea_mlops.accounting.resources import ComponentUse, ResourceTotals

__all__ = ["ComponentUse", "CostTotals", "ResourceTotals"]
