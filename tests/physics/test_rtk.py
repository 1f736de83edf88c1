"""Agreement with the Joseph forward projector of RTK (https://www.openrtk.org), an independent implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.geometry import VIEWS, BiplanarGeometry, centred_coordinates_mm, preset
from scripts.intensity import AIR_HU, hu_to_mu
from scripts.physics.raymarch import Pose, RayMarchProjector, rotate_pose, view_pose
from scripts.physics.separable import SeparableProjector

itk = pytest.importorskip("itk")
rtk = getattr(itk, "RTK", None)
if rtk is None:
    pytest.skip("needs itk-rtk", allow_module_level=True)

# Loading RTK's libraries takes longer than all of these tests.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:builtin type .* has no __module__")]

# The separable projector is Joseph's method as RTK's is; marching samples at other points of the same interpolant.
TOLERANCES = {SeparableProjector: 2e-4, RayMarchProjector: 2e-3}
CHEST_CT = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct" / "lidc_0002_chest.nii.gz"
SHAPE = (128, 128, 128)


def joseph(mu: torch.Tensor, geometry: BiplanarGeometry, poses: tuple[Pose, Pose]) -> torch.Tensor:
    """RTK's line integrals ``[1, 2, N, N]`` of ``mu [1, 1, U, V, W]``.

    RTK integrates between the outermost voxel centres, ours to where the interpolant is zero, one voxel further; a
    layer of zeros around RTK's volume makes both integrate the same function.
    """
    image = itk.Image[itk.F, 3]
    padded = torch.nn.functional.pad(mu[0, 0], (1,) * 6).float().numpy()
    volume = itk.image_from_array(np.ascontiguousarray(padded.transpose(2, 1, 0)))
    volume.SetSpacing([geometry.volume_spacing_mm] * 3)
    volume.SetOrigin([float(centred_coordinates_mm(n, geometry.volume_spacing_mm)[0]) for n in padded.shape])
    exam = rtk.ThreeDCircularProjectionGeometry.New()
    for pose in poses:
        positions = (itk.Point[itk.D, 3](list(p)) for p in (pose.source_mm, pose.detector_centre_mm))
        directions = (itk.Vector[itk.D, 3](list(d)) for d in (pose.column_direction, pose.row_direction))
        assert exam.AddProjection(*positions, *directions)
    first_mm = float(centred_coordinates_mm(geometry.detector_pixels, geometry.detector_spacing_mm)[0])
    blank = rtk.ConstantImageSource[image].New(
        Size=[geometry.detector_pixels] * 2 + [len(poses)],
        Spacing=[geometry.detector_spacing_mm] * 2 + [1.0],
        Origin=[first_mm, first_mm, 0.0],
        Constant=0.0,
    )
    projector = rtk.JosephForwardProjectionImageFilter[image, image].New()
    projector.SetInput(0, blank.GetOutput())
    projector.SetInput(1, volume)
    projector.SetGeometry(exam)
    projector.Update()
    seen = itk.array_from_image(projector.GetOutput())
    return torch.from_numpy(seen.transpose(0, 2, 1).copy()).unsqueeze(0)


def ellipsoid_and_slab() -> torch.Tensor:
    """An off-centre ellipsoid of water inside the grid, and a dense slab that leaves it through the upper face."""
    u, v, w = torch.meshgrid(*(centred_coordinates_mm(n, 2.5) for n in SHAPE), indexing="ij")
    ellipsoid = ((u - 20) / 90) ** 2 + ((v + 30) / 60) ** 2 + ((w + 10) / 110) ** 2 < 1
    slab = ((u + 70).abs() < 20) & ((v - 60).abs() < 10) & (w > 40)
    return (0.02 * ellipsoid + 0.05 * slab).float()[None, None]


def chest_ct() -> torch.Tensor:
    if not CHEST_CT.is_file():
        pytest.skip(f"the chest CT {CHEST_CT.name} is not here")
    nibabel = pytest.importorskip("nibabel")
    interpolate = pytest.importorskip("scipy.interpolate").interpn
    scan = nibabel.as_closest_canonical(nibabel.load(CHEST_CT))
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(scan.shape, scan.header.get_zooms(), strict=True)]
    grid = np.meshgrid(*(centred_coordinates_mm(n, 2.5).numpy() for n in SHAPE), indexing="ij")
    hu = scan.get_fdata(dtype=np.float32)
    hu = interpolate(axes, hu, np.stack(grid, -1), bounds_error=False, fill_value=AIR_HU)
    return hu_to_mu(torch.from_numpy(hu).float())[None, None]


def torso() -> torch.Tensor:
    phantom = pytest.importorskip("scripts.phantom.torso", reason="needs the phantom")
    return hu_to_mu(torch.as_tensor(phantom.torso(0, SHAPE, 2.5).hu).float().reshape(1, 1, *SHAPE))


@pytest.fixture(scope="module", params=[ellipsoid_and_slab, chest_ct, torso], ids=lambda subject: subject.__name__)
def mu(request):
    return request.param()


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", ["carm", "x2ct"])
def test_both_projectors_agree_with_rtk_on_both_views(name, mu):
    geometry = preset(name, SHAPE, 2.5, 128)
    expected = joseph(mu, geometry, tuple(view_pose(geometry, view) for view in VIEWS))
    for build, tolerance in TOLERANCES.items():
        seen = build(geometry)(mu)
        for view in range(2):
            assert relative(seen[:, view], expected[:, view]) <= tolerance


@pytest.mark.parametrize("name", ["carm", "x2ct"])
def test_tilted_poses_agree_with_rtk(name, mu):
    geometry = preset(name, SHAPE, 2.5, 128)
    poses = tuple(rotate_pose(view_pose(geometry, view), (0.10, -0.07, 0.20)) for view in VIEWS)
    seen, expected = RayMarchProjector(geometry, poses)(mu), joseph(mu, geometry, poses)
    assert relative(seen, expected) <= TOLERANCES[RayMarchProjector]
