"""Which lines of a batch have been answered, and which custom_ids have been met."""

import sqlite3


class Ledger:
    """Kept in a temporary file of SQLite's, so that a batch may have any number of lines."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE answered (number INTEGER PRIMARY KEY, custom_id TEXT)",
            "CREATE TABLE met (custom_id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)
        self.num_answered = 0

    def close(self) -> None:
        """Remove the temporary file."""
        self._database.close()

    def note_answered(self, number: int, custom_id: str | None) -> None:
        """The output has an answer to this line, which bears this custom_id."""
        added = self._database.execute(
            "INSERT OR IGNORE INTO answered VALUES (?, ?)", (number, custom_id)
        )
        self.num_answered += added.rowcount

    def answered(self, number: int) -> tuple[str | None] | None:
        """(the custom_id) of the answer to this line, or None if there is no answer yet."""
        found = self._database.execute(
            "SELECT custom_id FROM answered WHERE number = ?", (number,)
        ).fetchone()
        return None if found is None else (found[0],)

    def first_with(self, custom_id: str, number: int) -> int:
        """The first line that bears this custom_id, which line `number` does."""
        self._database.execute("INSERT OR IGNORE INTO met VALUES (?, ?)", (custom_id, number))
        (first,) = self._database.execute(
            "SELECT number FROM met WHERE custom_id = ?", (custom_id,)
        ).fetchone()
        return int(first)
