"""Preparation of CT scans as cases: body, standard volume, both radiographs, splits and a manifest.

:func:`scripts.cases.standard.prepare_volume` does the processing. This file does the bookkeeping: it prepares many
scans at once, resumes, and reports failed scans without losing the others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
from tqdm import tqdm

from scripts.cases.ct import CtVolume
from scripts.cases.manifest import COLUMNS, read_manifest, saved_tables
from scripts.cases.splits import decide_splits
from scripts.cases.standard import Settings, prepare_volume
from scripts.io.case import read_record, write_case
from scripts.io.errors import SomeFailed
from scripts.io.options import require_number, require_seed
from scripts.io.text import write_text

logger = logging.getLogger(__name__)


class Scan(Protocol):
    """A CT that can be read later, in another process."""

    name: str
    patient: str
    source: str

    def read(self) -> CtVolume:
        """Read and check the volume."""

    def sha256(self) -> str:
        """Return a digest of the files; empty if there are none."""


def prepare_case(scan: Scan, settings: Settings, folder: Path) -> dict[str, Any]:
    """Read one scan, prepare it and write its case folder.

    Returns:
        Provenance: source, native shape, spacing, orientation and HU range, and the digest of the source files.

    Raises:
        ValueError: the scan cannot be used; the message says why.
    """
    ct = scan.read()
    record = {
        "source": scan.source,
        "shape": "x".join(str(n) for n in ct.hu.shape),
        "spacing_mm": "x".join(f"{s:.4f}" for s in nib.affines.voxel_sizes(ct.affine)),
        "orientation": "".join(nib.aff2axcodes(ct.affine)),
        "hu_min": round(float(ct.hu.min()), 2),
        "hu_max": round(float(ct.hu.max()), 2),
        "sha256": scan.sha256(),
    }
    prepared = prepare_volume(ct, settings, scan.source)
    write_case(folder, settings.geometry, **prepared._asdict(), record=record | settings.to_dict())
    return record


def prepare(
    scans: Sequence[Scan],
    output: str | Path,
    settings: Settings,
    splits_csv: str | Path | None = None,
    val: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    executor: Executor | None = None,
) -> list[dict[str, Any]]:
    """Prepare every scan into ``output/cases``, and write ``manifest.csv`` and ``splits.json``.

    A finished case is prepared again only if the files of its scan have changed; the log names it, since results of the
    earlier CT may be in use. A patient keeps the split of an earlier run into the same folder.

    Args:
        scans: scans with distinct names.
        output: output folder, created if needed.
        settings: settings, which must equal those of an earlier run into the same folder.
        splits_csv: table of names and splits; without it patients are assigned at random.
        val: fraction (below 1) or number (1 or more) of validation patients; unused with ``splits_csv``.
        test: fraction or number of test patients; unused with ``splits_csv``.
        seed: seed of the random splits.
        executor: executor of the work, shut down at the end, see :mod:`scripts.cases.executors`; None to work in this
            process. Its processes must see the files by the same paths.

    Returns:
        The rows of these scans in the manifest.

    Raises:
        ValueError: settings or splits are contradictory. A bad scan raises no error; its row says ``failed`` and why.
    """
    require_seed(seed=seed)
    require_number(val=val, test=test)
    output = Path(output)
    known = read_manifest(output)
    rows = {scan.name: {"case": scan.name, "patient": scan.patient, "source": scan.source} for scan in scans}
    decide_splits(rows, known, splits_csv, val, test, seed)
    (output / "cases").mkdir(parents=True, exist_ok=True)
    _check_settings(output / "settings.json", settings)
    jobs = [(scan, settings, output / "cases" / scan.name) for scan in scans]
    for scan, _, folder in jobs:
        rows[scan.name] |= _finished(folder) if folder.is_dir() else {"status": "pending"}
    with saved_tables(output, known | rows):
        for name, result in tqdm(_run(jobs, executor), total=len(jobs), desc="prepare", unit="case"):
            if rows[name]["status"] == result["status"] == "ok" and rows[name].get("sha256") != result["sha256"]:
                logger.warning("%s: its CT has changed, and was prepared again; train and measure again with it", name)
            rows[name] |= result
    return list(rows.values())


def main(scans: Callable[[], Sequence[Scan]], output: str | Path | None, settings: Settings, **options: Any) -> None:
    """Run :func:`prepare` as a command and print a summary.

    Args:
        scans: function that finds the scans.
        output: output folder.
        settings: geometry and source spacing.
        **options: the other arguments of :func:`prepare`.

    Raises:
        ValueError: there is no output folder, or :func:`prepare` raises it.
        SomeFailed: some scans failed.
    """
    if output is None:
        raise ValueError("output folder: none given; add --output_dir DIR")
    rows = prepare(scans(), output, settings, **options)
    failed = [f"  {row['case']}: {row['reason']}" for row in rows if row["status"] != "ok"]
    print(f"prepare: {len(rows) - len(failed)} of {len(rows)} cases in {output}", flush=True)
    if failed:
        raise SomeFailed(f"prepare: {len(failed)} of {len(rows)} scans", failed)


def _finished(folder: Path) -> dict[str, Any]:
    """Return the columns of a finished case."""
    return {name: value for name, value in read_record(folder).items() if name in COLUMNS} | {"status": "ok"}


def _attempt(scan: Scan, settings: Settings, folder: Path) -> dict[str, Any]:
    """Prepare one scan unless it is finished, and return its columns.

    Other errors than those of a bad scan are left to the executor.
    """
    try:
        if folder.is_dir() and (finished := _finished(folder)).get("sha256") == scan.sha256():
            return finished
        return prepare_case(scan, settings, folder) | {"status": "ok"}
    except ValueError as error:
        return {"status": "failed", "reason": str(error)}


def _run(
    jobs: Sequence[tuple[Scan, Settings, Path]], executor: Executor | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(name, columns)`` of each scan as it finishes."""
    if executor is None:
        for job in jobs:
            yield job[0].name, _columns(partial(_attempt, *job))
        return
    with executor:
        futures = {executor.submit(_attempt, *job): job[0].name for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], _columns(future.result)
        finally:
            for future in futures:
                future.cancel()


def _columns(result: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the columns of a scan; errors become columns, so that one bad scan does not lose the others."""
    try:
        return result()
    except BrokenExecutor as error:
        return {"status": "failed", "reason": f"its process died ({error}); try again with fewer workers"}
    except Exception as error:
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"}


def _check_settings(path: Path, settings: Settings) -> None:
    """Write the settings, or compare them with those of an earlier run."""
    asked = json.loads(json.dumps(settings.to_dict()))
    if not path.is_file():
        write_text(path, json.dumps(asked, indent=2))
        return
    before = json.loads(path.read_text())
    different = [f"{k} was {before.get(k)!r}, now {asked.get(k)!r}" for k in asked if before.get(k) != asked.get(k)]
    if different:
        raise ValueError(
            f"{path.parent}: prepared with other settings: {'; '.join(different)}; use a new output folder or the "
            "earlier settings"
        )
