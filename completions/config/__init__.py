"""Configuration as code: the file that `manage.py apply` reads and `manage.py export_config` writes.

schema     what may stand in the file: kinds and fields as rows; later sections are more rows
loader     YAML to a Document with line numbers; substitution puts secrets in from the environment or files
reading    a Document to entries of the schema, every fault with its place
apply      entries to database rows, in one transaction; rows knows how one kind is kept
export     database rows to a file
"""

from completions.config.apply import apply_config
from completions.config.difference import Difference
from completions.config.export import export_text
from completions.config.loader import Document, load
from completions.config.problems import ConfigRefused

__all__ = ["ConfigRefused", "Difference", "Document", "apply_config", "export_text", "load"]
