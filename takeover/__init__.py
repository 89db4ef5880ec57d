"""Takeover: supervise a learning robot, take over when it falters, and turn every correction into a better policy."""

__version__ = "0.1.0"
