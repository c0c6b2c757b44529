"""The report: one HTML page that says what was found, why, and how far to trust it."""

from kntrace.report.page import write_report

__all__ = ["write_report"]
