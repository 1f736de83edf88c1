"""The part of a volume that its radiographs can see: an orthogonal projection, and its share around each voxel."""

import pytest
import torch

from scripts.geometry import preset
from scripts.physics.row_space import support, visible_part
from scripts.physics.separable import SeparableProjector

PROJECTOR = SeparableProjector(preset("carm", (4, 5, 3), 60.0, 6), torch.float64)
BOTH = torch.ones(1, *PROJECTOR.image_shape, dtype=torch.float64)
FRONTAL = BOTH * torch.tensor([1.0, 0.0])[:, None, None]


def volume(seed=0, exams=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(exams, *PROJECTOR.volume_shape, generator=generator, dtype=torch.float64)


def seen(d, image=BOTH, steps=200):
    return visible_part(d, image.expand(len(d), -1, -1, -1), PROJECTOR, steps)


def share(d, image=BOTH):
    return support(d, image.expand(len(d), -1, -1, -1), PROJECTOR, steps=200, width=1.0)


def onto_rows(a):
    """The orthogonal projection onto the row space of a matrix, by its singular vectors."""
    _, values, rows = torch.linalg.svd(a, full_matrices=False)
    rows = rows[values > 1e-9 * values[0]]
    assert 0 < len(rows) < a.shape[1]
    return rows.T @ rows


@pytest.mark.parametrize("image, pixels", [(BOTH, slice(None)), (FRONTAL, slice(36))])
def test_the_visible_part_is_the_orthogonal_projection_onto_the_row_space(image, pixels):
    count = volume().numel()
    a = PROJECTOR(torch.eye(count, dtype=torch.float64).reshape(-1, *PROJECTOR.volume_shape)).flatten(1).T[pixels]
    d = volume(exams=2)
    best = d.flatten(1) @ onto_rows(a)
    for steps in (200, 400):  # long solved
        torch.testing.assert_close(seen(d, image, steps).flatten(1), best, rtol=0, atol=1e-9)


def test_it_is_idempotent_symmetric_and_has_the_same_radiographs():
    a, b = volume(1), volume(2)
    torch.testing.assert_close(seen(seen(a)), seen(a), rtol=0, atol=1e-5)
    torch.testing.assert_close((seen(a) * b).sum(), (a * seen(b)).sum(), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(PROJECTOR(seen(a)), PROJECTOR(a), rtol=1e-6, atol=1e-6)


def test_support_is_whole_in_the_row_space_and_none_in_the_null_space():
    generator = torch.Generator().manual_seed(3)
    row = PROJECTOR.adjoint(torch.randn(1, *PROJECTOR.image_shape, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(share(row), torch.ones_like(row), rtol=0, atol=1e-4)
    null = volume() - seen(volume())
    assert float(share(null).max()) < 1e-4
    assert 0.01 < float(share(volume()).mean()) < 0.99


def test_support_is_a_share_that_does_not_depend_on_the_scale_nor_on_other_exams():
    d = volume(exams=2)
    found = share(d)
    assert found.min() >= 0 and found.max() <= 1 and found.max() > 0.5
    torch.testing.assert_close(share(-1000 * d), found, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(share(d[1:]), found[1:], rtol=1e-6, atol=1e-6)


def test_one_view_supports_less_than_two():
    assert share(volume(), FRONTAL).mean() < 0.9 * share(volume()).mean()


def test_without_any_deviation_nothing_is_supported():
    assert not share(0 * volume()).any()
