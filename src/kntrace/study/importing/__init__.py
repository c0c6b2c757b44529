"""Studies from files of another make: tables, and data sets of facts."""

from kntrace.study.importing.formats import FORMATS, Imported, import_study

__all__ = ["FORMATS", "Imported", "import_study"]
