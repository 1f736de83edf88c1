"""The reliability diagram."""

import matplotlib.image
import numpy as np
import pytest
from tests.refusal import refused

from scripts.report.reliability import draw_reliability

LEVELS = np.linspace(0.1, 0.9, 5)


def test_the_picture_is_written_with_a_line_per_case_and_mean(tmp_path):
    curves = {"raw": np.stack([LEVELS**2, LEVELS**3]), "tempered": np.stack([LEVELS, LEVELS])}
    draw_reliability(tmp_path / "r.png", LEVELS, curves, "2 cases")
    draw_reliability(tmp_path / "s.png", LEVELS, {"raw": curves["raw"]}, "2 cases")
    pictures = [matplotlib.image.imread(tmp_path / name) for name in ("r.png", "s.png")]
    assert pictures[0].std() > 0.05 and not np.array_equal(*pictures)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.png", "s.png"]


@pytest.mark.parametrize("values", [np.zeros(5), np.zeros((2, 4)), np.zeros((0, 5))])
def test_coverages_that_do_not_belong_to_the_levels_are_refused(tmp_path, values):
    with refused(ValueError, "'raw'", "[cases, 5 levels]", "got"):
        draw_reliability(tmp_path / "r.png", LEVELS, {"raw": values}, "")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ends in '.gif'"):
        draw_reliability(tmp_path / "r.gif", LEVELS, {"raw": np.zeros((1, 5))}, "")
