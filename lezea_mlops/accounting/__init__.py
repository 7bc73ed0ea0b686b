"""Accounts of resources and costs: streaming aggregates over events."""

from lezea_mlops.accounting.accounts import ACCOUNTED_TYPES, Accounts
from lezea_mlops.accounting.budgets import Budgets
from lezea_mlops.accounting.costs import CostTotals
from lezea_mlops.accounting.resources import ComponentUse, ResourceTotals

__all__ = ["ACCOUNTED_TYPES", "Accounts", "Budgets", "ComponentUse", "CostTotals", "ResourceTotals"]
