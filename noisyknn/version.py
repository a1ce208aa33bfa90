"""The version of noisyknn."""

__version__ = "0.1.0"
