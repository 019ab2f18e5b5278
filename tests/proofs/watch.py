"""What the database itself saw of a budget: every value that a commit gave a window."""

from collections.abc import Callable
from typing import Any

TABLE = "CREATE TABLE proof_seen (spent bigint NOT NULL, held bigint NOT NULL)"
SQLITE = """
CREATE TRIGGER proof_watch AFTER UPDATE ON completions_budgetwindow
BEGIN INSERT INTO proof_seen VALUES (NEW.spent_nano, NEW.held_nano); END
"""
POSTGRES = (
    """
    CREATE FUNCTION proof_watch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO proof_seen VALUES (NEW.spent_nano, NEW.held_nano); RETURN NEW; END $$
    """,
    """
    CREATE TRIGGER proof_watch AFTER UPDATE ON completions_budgetwindow
    FOR EACH ROW EXECUTE FUNCTION proof_watch()
    """,
)
MOST = "SELECT max(spent + held), max(held) FROM proof_seen"

Execute = Callable[[str], Any]


def watch(execute: Execute, vendor: str) -> None:
    """From now on the database notes each value in the transaction that makes it."""
    for statement in (TABLE, *((SQLITE,) if vendor == "sqlite" else POSTGRES)):
        execute(statement)


def unwatch(execute: Execute, vendor: str) -> None:
    if vendor == "sqlite":
        execute("DROP TRIGGER proof_watch")
    else:
        execute("DROP FUNCTION proof_watch CASCADE")
    execute("DROP TABLE proof_seen")
