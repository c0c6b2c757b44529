"""Files that people write by hand: read them, and say in which line a fault lies.

A study and a suite are both YAML or JSON. What reads them, guards against files that are
broken, enormous or hostile, and turns a failed validation into one line is the same for both.
"""

from kntrace.documents.explain import (
    Describe,
    Entries,
    Fault,
    clean_text,
    explain,
    name_of_file,
    nearest_path,
    one_name,
    shown,
    validate,
)
from kntrace.documents.nodes import DataPath, Document
from kntrace.documents.read import each_line, parse_document, parse_json, read_document, read_text
from kntrace.documents.rows import Rows, read_csv
from kntrace.documents.write import write_yaml
from kntrace.nearest import nearest

__all__ = [
    "DataPath",
    "Describe",
    "Document",
    "Entries",
    "Fault",
    "Rows",
    "clean_text",
    "each_line",
    "explain",
    "name_of_file",
    "nearest",
    "nearest_path",
    "one_name",
    "parse_document",
    "parse_json",
    "read_csv",
    "read_document",
    "read_text",
    "shown",
    "validate",
    "write_yaml",
]
