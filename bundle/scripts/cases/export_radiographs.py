"""Export of prepared cases as DICOM radiographs like a hospital's, to test the whole path to a CT."""

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
    """Find all case folders in a folder, at any depth, or the folder itself.

    Raises:
        ValueError: the folder does not exist or holds no case, or two cases have the same name.
    """
    if folder is None or not Path(folder).is_dir():
        raise ValueError(f"input folder: expected a case or a folder of cases, got {folder!r}; give --input DIR")
    root = Path(folder).resolve()
    found = [path.parent for path in sorted(root.rglob(GEOMETRY_FILE))]
    cases = [case for case in found if not is_hidden(case.relative_to(root))]
    if not cases:
        raise ValueError(f"{root}: holds no prepared case, i.e. a folder with {GEOMETRY_FILE}; check --input")
    named = {case.name: case for case in cases}
    for case in cases:
        if named[case.name] != case:
            raise ValueError(f"two cases have the same name: {case} and {named[case.name]}; export them one by one")
    return cases


def export_case(case: Path, output: Path, form: Form, photons: float | None = None, seed: int = 0) -> None:
    """Write ``frontal.dcm`` and ``lateral.dcm`` of one case atomically into a folder.

    Both belong to one study of a patient with the case's name as ID.

    Args:
        case: the case folder.
        output: destination; an earlier export is replaced.
        form: encoding of the files; see :data:`~scripts.dicom.write_radiograph.FORMS`.
        photons: photons per pixel in the open beam; None for no noise.
        seed: seed of the noise.

    Raises:
        ValueError: the case is unreadable, its name is not a valid patient ID, or ``output`` is something else.
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
    """Run :func:`export_case` on many cases: write ``output/<case>`` for each and print a summary.

    Args:
        cases: function that finds the cases.
        output: parent of the output folders.
        form: a key of :data:`~scripts.dicom.write_radiograph.FORMS`.
        photons: as in :func:`export_case`.
        seed: as in :func:`export_case`.

    Raises:
        ValueError: there is no output folder, the seed or form is invalid, or there are no cases.
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
