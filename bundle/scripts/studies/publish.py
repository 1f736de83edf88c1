"""Publication of a sweep's results: the table of all methods, the underlying measurements, and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.io.text import write_text
from scripts.metrics.comparison import compare, comparison_markdown, numbers
from scripts.metrics.protocol import NOTES
from scripts.metrics.tables import to_csv
from scripts.studies.summary import Text, page


class PublishComparison:
    """Writer of ``comparison.csv``, ``comparison.md`` and ``cases.csv``, each atomically, and of pictures by ``draw``.

    Args:
        reference: method that all others are compared with.
        settings: facts about the sweep, for readers.
        draw: called as ``draw(output_dir, methods)`` at the end; None for no pictures.
    """

    def __init__(
        self,
        reference: str,
        settings: Mapping[str, Any],
        draw: Callable[[Path, Sequence[str]], None] | None = None,
    ) -> None:
        self.reference, self.settings, self.draw = reference, dict(settings), draw

    def __call__(
        self, output_dir: Path, rows: Sequence[Mapping[str, str]], costs: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Publish the measurements ``rows`` of all cases and methods and each method's ``costs``."""
        measured = numbers(rows)
        present = {row["method"] for row in measured}
        reference = self.reference if self.reference in present else next(iter(costs))
        if reference != self.reference:
            print(f"reference {self.reference!r} was not measured: compared with {reference!r} instead", flush=True)
        table = compare(measured, costs, reference)
        write_text(output_dir / "cases.csv", to_csv(measured))
        write_text(output_dir / "comparison.csv", to_csv(table))
        text = comparison_markdown(table, reference)
        write_text(output_dir / "comparison.md", self._page(text, len({row["case"] for row in measured})))
        print(f"\n{text}\n\ntables in {output_dir}", flush=True)
        if self.draw is not None:
            self.draw(output_dir, list(costs))

    def _page(self, table: str, cases: int) -> str:
        about = (
            f"Mean ± standard deviation over {cases} cases; differences are paired by case, with a bootstrap "
            "interval. Training time and memory are those of the whole command, including validation and start-up."
        )
        facts = {name: value for name, value in self.settings.items() if value is not None}
        return page(Text("Comparison of methods", about, NOTES), table, facts)
