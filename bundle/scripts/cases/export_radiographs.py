"""Prepared cases as the DICOM radiographs that a hospital would send, to try the whole way from there to a CT."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from scripts.dicom.write_radiograph import FORMS, Form, simulated_header, write_dx
from scripts.geometry import VIEWS
from scripts.io.atomic import whole_folder
from scripts.io.case import GEOMETRY_FILE, read_case
from scripts.io.errors import SomeFailed
from scripts.io.folders import is_hidden
from scripts.io.options import require_seed
from scripts.physics.noise import poisson_noise


def find_cases(folder: str | Path | None) -> list[Path]:
    """A case folder, or all of them in a folder, at any depth.

    Raises:
        ValueError: no folder, no case in it, or two cases of one name.
    """
    if folder is None or not Path(folder).is_dir():
        raise ValueError(f"input folder: expected a case or a folder of cases, got {folder!r}; give --input DIR")
    root = Path(folder).resolve()
    found = [path.parent for path in sorted(root.rglob(GEOMETRY_FILE))]
    cases = [case for case in found if not is_hidden(case.relative_to(root))]
    if not cases:
        raise ValueError(f"{root}: holds no prepared case, that is a folder with {GEOMETRY_FILE}; check --input")
    named = {case.name: case for case in cases}
    for case in cases:
        if named[case.name] != case:
            raise ValueError(f"two cases of one name: {case} and {named[case.name]}; export them one by one")
    return cases


def export_case(case: Path, output: Path, form: Form, photons: float | None = None, seed: int = 0) -> None:
    """Write ``frontal.dcm`` and ``lateral.dcm`` of one case into a folder, which appears whole or not at all.

    Both are of one study of a patient whose ID is the case's name.

    Args:
        case: its folder.
        output: an earlier export there is replaced.
        form: what the files store; see :data:`~scripts.dicom.write_radiograph.FORMS`.
        photons: per pixel in the open beam; None leaves the noise out.
        seed: of the noise.

    Raises:
        ValueError: an unreadable case, one whose name is no patient ID, or ``output`` is something else.
    """
    exam = read_case(case)
    line_integrals = exam.line_integrals
    if photons is not None:
        line_integrals = poisson_noise(line_integrals, photons, torch.Generator().manual_seed(seed))
    content = hashlib.sha256(line_integrals.numpy().tobytes() + exam.geometry.to_json().encode()).hexdigest()
    header = simulated_header(exam.name, content)
    with whole_folder(output, f"{VIEWS[0]}.dcm") as partial:
        for view, pixels in zip(VIEWS, line_integrals.numpy(), strict=True):
            write_dx(partial / f"{view}.dcm", pixels, view, exam.geometry, header, form)


def main(
    cases: Callable[[], Sequence[Path]],
    output: str | Path | None,
    form: str = "processing",
    photons: float | None = None,
    seed: int = 0,
) -> None:
    """:func:`export_case` of many as a command: writes ``output/<case>`` of each and prints a summary.

    Args:
        cases: finds them.
        output: parent of the folders.
        form: a key of :data:`~scripts.dicom.write_radiograph.FORMS`.
        photons: as in :func:`export_case`.
        seed: likewise.

    Raises:
        ValueError: no output folder, not a seed, an unknown form, or no cases.
        SomeFailed: some cases failed.
    """
    if output is None:
        raise ValueError("output folder: none given; add --output_dir DIR")
    require_seed(seed=seed)
    if form not in FORMS:
        raise ValueError(f"--form: choose one of {', '.join(FORMS)}, got {form!r}")
    folders = cases()
    failed = []
    for case in tqdm(folders, "export", unit="case"):
        try:
            export_case(case, Path(output) / case.name, FORMS[form], photons, seed)
        except ValueError as error:
            failed.append(str(error))
    print(f"export: {len(folders) - len(failed)} of {len(folders)} cases in {output}", flush=True)
    if failed:
        raise SomeFailed(f"export: {len(failed)} of {len(folders)} cases", failed)
