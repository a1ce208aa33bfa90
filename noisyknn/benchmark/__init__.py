"""Measurements of noisyknn itself."""
