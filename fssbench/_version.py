"""The version of fssbench."""

__version__ = "0.1.0"
