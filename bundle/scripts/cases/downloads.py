"""Public collections of CTs, downloaded on request only."""

from __future__ import annotations

import shutil
from pathlib import Path

from monai.apps import DecathlonDataset
from monai.apps.tcia import download_tcia_series_instance, get_tcia_metadata

from scripts.cases.scans import CtScan, find_scans


def decathlon_scans(folder: str | Path | None, task: str, download: bool = False) -> list[CtScan]:
    """Find the CT volumes of a Medical Segmentation Decathlon task below ``folder/task``.

    Args:
        folder: folder with the extracted task, or for its download.
        task: for example ``Task06_Lung``.
        download: whether to download a missing task.

    Raises:
        ValueError: the folder does not exist, or the download failed.
    """
    root = _existing(folder, download)
    if download:
        try:
            DecathlonDataset(root, task, section="training", download=True, cache_num=0)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{task}: cannot download into {root} ({error}); fetch it by hand") from error
    return find_scans(root / task, exclude=["labels*"])


def tcia_scans(folder: str | Path | None, collection: str, download: bool = False) -> list[CtScan]:
    """Find the CT series of a collection of The Cancer Imaging Archive in ``folder``, without other modalities.

    Args:
        folder: folder with the series, in any arrangement, or for the download of one folder per series.
        collection: for example ``LIDC-IDRI``.
        download: whether to download missing CT series.

    Raises:
        ValueError: the folder does not exist, or the download failed; complete series are kept.
    """
    root = _existing(folder, download)
    if download:
        try:
            for uid in get_tcia_metadata(f"getSeries?Collection={collection}&Modality=CT", "SeriesInstanceUID"):
                _download_series(uid, root)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{collection}: cannot download into {root} ({error}); try again to resume") from error
    return [scan for scan in find_scans(root) if scan.modality == "CT"]


def _download_series(uid: str, root: Path) -> None:
    """Download one series to ``root/uid``, which appears when it is complete."""
    if (root / uid).is_dir():
        return
    partial = root / f".partial-{uid}"
    shutil.rmtree(partial, ignore_errors=True)
    download_tcia_series_instance(uid, download_dir=partial / "zip", output_dir=partial / "series", progress=False)
    (partial / "series").rename(root / uid)
    shutil.rmtree(partial)


def _existing(folder: str | Path | None, download: bool) -> Path:
    if folder is None:
        raise ValueError("input folder: none given; add --input DIR")
    root = Path(folder)
    if download:
        root.mkdir(parents=True, exist_ok=True)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; check --input, or add --download true")
    return root
