"""What became of every case of a study: measured, or lost and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.io.errors import SomeFailed
from scripts.metrics.tables import Summary
from scripts.studies.summary import Text, page, write_tables


class Account:
    """Collects the measurements of a study and the errors of the cases that it loses.

    A study measures every case within :meth:`case`, makes sure that it has measured one (:meth:`require`), writes the
    tables (:meth:`publish`), and in the end says which cases it lost (:meth:`close`).

    Args:
        failures: cases that are lost already, to their errors.

    Attributes:
        rows: the measurements; the study appends them.
        failures: name of each lost case to its error.
        done: names of all others.
    """

    def __init__(self, failures: Mapping[str, str] | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.failures = dict(failures or {})
        self.done: set[str] = set()

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """Note a ``ValueError`` that is raised within as the failure of a case, and go on."""
        try:
            yield
            self.done.add(name)
        except ValueError as error:
            self.failures[name] = str(error)

    @property
    def measured(self) -> int:
        """The number of cases that have rows."""
        return len({row["case"] for row in self.rows})

    def require(self, found: Collection[Any], rule: str = "no case could be measured") -> None:
        """Refuse to go on without any measurement.

        Raises:
            ValueError: ``found`` is empty; with the error of every lost case.
        """
        if not found:
            raise ValueError("\n".join([f"{rule}:", *self.failures.values()]))

    def publish(
        self,
        output_dir: Path,
        text: Text,
        facts: Mapping[str, Any],
        summary: Summary,
        table: str,
        headline: str | None = None,
    ) -> None:
        """Write the tables, each file atomically, and print the summary.

        Args:
            output_dir: made if needed.
            text: of the page around the table.
            facts: JSON-ready, about the run; the number of cases and the failures are added.
            summary: statistics of the rows.
            table: the summary in Markdown.
            headline: printed below the table; by default the number of cases.
        """
        record = {**facts, "cases": self.measured, "failures": self.failures}
        write_tables(output_dir, self.rows, summary, record, page(text, table, record))
        print(f"\n{table}\n\n{headline or f'{self.measured} cases'}; tables in {output_dir}", flush=True)

    def close(self) -> None:
        """Say which cases were lost.

        Raises:
            SomeFailed: some were.
        """
        lost = len(self.failures)
        if lost:
            raise SomeFailed(f"{lost} of {lost + len(self.done)} cases", self.failures.values())


@contextmanager
def named(case: str) -> Iterator[None]:
    """Begin the message of a ``ValueError`` that is raised within with the name of the case."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{case}: {error}") from error
