"""Accounts of resources and costs: streaming aggregates over events."""

from lezea_mlops.accounting.accounts import Accounts
from lezea_mlops.accounting.budgets import Budgets

__all__ = ["Accounts", "Budgets"]
