"""Account of the cases of a study: measured ones, and failed ones with their errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ignite.distributed as idist
from tqdm import tqdm

from scripts.io.errors import SomeFailed
from scripts.io.processes import gathered, is_first
from scripts.metrics.tables import Summary
from scripts.studies.summary import Text, page, write_tables

T = TypeVar("T")


class Account:
    """Collection of the measurements of a study and the errors of failed cases.

    A study measures every case within :meth:`case`, checks that at least one was measured (:meth:`require`), writes the
    tables (:meth:`publish`), and finally reports the failed cases (:meth:`close`). If several processes share the
    cases, :meth:`gather` comes first, and the first process alone writes and reports.

    Args:
        failures: errors of cases that have already failed, by name.

    Attributes:
        rows: measurements, appended by the study.
        failures: errors of failed cases by name.
        done: names of all other cases.
    """

    def __init__(self, failures: Mapping[str, str] | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.failures = dict(failures or {})
        self.done: set[str] = set()

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """Record a ``ValueError`` raised in the block as the failure of a case, and continue."""
        try:
            yield
            self.done.add(name)
        except ValueError as error:
            self.failures[name] = str(error)

    def each(
        self, cases: Iterable[Mapping[str, Any]], description: str, measure: Callable[[Mapping[str, Any]], T]
    ) -> Iterator[tuple[str, T]]:
        """Yield name and measurement of every case, with a progress bar; failures are recorded and skipped."""
        for case in tqdm(cases, desc=description, unit="case"):
            found = []
            with self.case(case["name"]), named(case["name"]):
                found.append(measure(case))
            for one in found:
                yield case["name"], one

    def gather(self) -> None:
        """Collect what all processes have measured, in order of rank, so that each has the account of all cases."""
        shares = gathered((self.rows, self.failures, self.done))
        self.rows = [row for rows, _, _ in shares for row in rows]
        self.failures = {name: error for _, failures, _ in shares for name, error in failures.items()}
        self.done = {name for _, _, done in shares for name in done}

    @property
    def measured(self) -> int:
        """The number of cases that have rows."""
        return len({row["case"] for row in self.rows})

    def require(self, found: Collection[Any], rule: str = "no case could be measured") -> None:
        """Check that there is at least one measurement.

        Raises:
            ValueError: ``found`` is empty; the message contains the errors of all failed cases.
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
            output_dir: output folder, created if needed.
            text: text of the page around the table.
            facts: JSON-ready facts about the run; the number of cases and the failures are added.
            summary: statistics of the rows.
            table: the summary in Markdown.
            headline: line printed below the table; by default the number of cases.
        """
        if not is_first():
            return
        record = {**facts, "cases": self.measured, "failures": self.failures}
        write_tables(output_dir, self.rows, summary, record, page(text, table, record))
        print(f"\n{table}\n\n{headline or f'{self.measured} cases'}; tables in {output_dir}", flush=True)

    def close(self) -> None:
        """Report the failed cases, when all processes are done: a launcher ends all others when one ends with an error.

        Raises:
            SomeFailed: some cases failed.
        """
        idist.barrier()
        lost = len(self.failures)
        if lost and is_first():
            raise SomeFailed(f"{lost} of {lost + len(self.done)} cases", self.failures.values())


@contextmanager
def named(case: str) -> Iterator[None]:
    """Prefix the message of a ``ValueError`` raised in the block with the name of the case."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{case}: {error}") from error
