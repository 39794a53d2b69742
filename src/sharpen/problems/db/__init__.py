"""Databases whose settings are to be found."""

from sharpen.problems.db.duckdb import DuckDB

__all__ = ["DuckDB"]
