"""How much of reconstructions their films support, and whether errors are larger where they support little.

    PYTHONPATH=bundle python benchmarks/support.py --results OUT

OUT holds results of prepared cases (`inference.json --support true --grid_factor 1`). Per case: the mean support and
its rank correlation with the absolute error, in the body and in the true bone; for comparison that of the predicted
standard deviation (docs/uncertainty.md). The true CT is that of the case.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from scripts.cases.body import body_mask
from scripts.intensity import NETWORK_HU_RANGE
from scripts.io.case import CT_FILE
from scripts.io.folders import RESULT_FILE
from scripts.io.nifti import read_volume
from scripts.metrics.protocol import BONE_HU
from scripts.metrics.tables import to_csv


def rows_of(folder: Path) -> list[dict[str, str | float]]:
    """Measure one result, in the body and in its bone."""
    inputs = [Path(path) for path in json.loads((folder / RESULT_FILE).read_text())["inputs_sha256"]]
    truth, affine = read_volume(inputs[0].parent / CT_FILE)
    truth = truth.clip(*NETWORK_HU_RANGE)
    hu, support, std = (read_volume(folder / f"{name}.nii.gz")[0] for name in ("ct", "support", "std"))
    error, body = np.abs(hu - truth), body_mask(truth, float(affine[0, 0]))
    return [
        {
            "case": folder.name,
            "region": region,
            "support": support[chosen].mean(),
            "correlation of error and lack of support": spearmanr(error[chosen], -support[chosen]).statistic,
            "correlation of error and std": spearmanr(error[chosen], std[chosen]).statistic,
        }
        for region, chosen in (("body", body), ("bone", body & (truth >= BONE_HU)))
    ]


def main() -> None:
    """Print one line per case and region, and the means, as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    folders = sorted(path.parent for path in parser.parse_args().results.glob(f"*/{RESULT_FILE}"))
    rows = [row for folder in folders for row in rows_of(folder)]
    for region in ("body", "bone"):
        of_region = [row for row in rows if row["region"] == region]
        means = {name: np.mean([row[name] for row in of_region]) for name in list(rows[0])[2:]}
        rows.append({"case": "mean", "region": region, **means})
    print(to_csv(rows), end="")


if __name__ == "__main__":
    main()
