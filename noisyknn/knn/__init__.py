"""Exact nearest neighbours and their votes."""
