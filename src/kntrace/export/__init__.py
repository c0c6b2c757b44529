"""A run's scores for other tools: parquet, csv, and the layout of the paper's public code."""

from kntrace.export.formats import FORMATS, export_run

__all__ = ["FORMATS", "export_run"]
