"""Staff pages for who asks, what came back, what it cost; and for people and their groups."""

from completions.admin import accounts, api_keys, budgets, cached, calls, projects

__all__ = ["accounts", "api_keys", "budgets", "cached", "calls", "projects"]
