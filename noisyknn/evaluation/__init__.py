"""Measures how good a correction is."""
