"""The report: one HTML page that holds everything and needs nothing."""

from kntrace.report.page import write_report

__all__ = ["write_report"]
