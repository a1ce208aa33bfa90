"""Backbones and losses."""
