import gzip
import logging

import nibabel as nib
import numpy as np
import pytest
from tests.refusal import refused

from scripts.cases.scans import find_scans, read_ct


def hounsfield():
    return np.linspace(-1000, 400, 6 * 5 * 4, dtype=np.float32).reshape(6, 5, 4)


def save(path, voxels, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def test_a_nifti_ct_is_read_with_its_scaling_and_its_affine(tmp_path):
    affine = np.array([[0, -2, 0, 5], [0, 0, 3, -7], [1.5, 0, 0, 11], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(((hounsfield() + 1000) / 2).astype(np.int16), affine)
    image.header.set_slope_inter(2, -1000)
    image.to_filename(tmp_path / "ct.nii")
    ct = read_ct([tmp_path / "ct.nii"])
    np.testing.assert_allclose(ct.hu, hounsfield(), atol=2)
    np.testing.assert_allclose(ct.affine, affine)


def with_nan():
    hu = hounsfield()
    hu[1, 2, 3] = np.nan
    return hu


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (with_nan(), "1 voxels are NaN or infinite"),
        (np.full((4, 4, 4), -1000.0), "every voxel is -1000.0"),
        (hounsfield() + 1024, r"\[24, 1424\] .*-200, .*HU"),
        (hounsfield()[..., None].repeat(2, -1), r"one 3D volume, got shape \(6, 5, 4, 2\)"),
        (hounsfield()[..., 0], r"one 3D volume, got shape \(6, 5\)"),
    ],
)
def test_voxels_that_are_not_one_ct_in_hu_are_refused_by_rule_and_value(tmp_path, voxels, message):
    path = save(tmp_path / "ct.nii.gz", voxels)
    with pytest.raises(ValueError, match=message) as refusal:
        read_ct([path])
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("spacing_mm", "fragment"),
    [
        ((1e-4, 1, 1), "0.0001 x 1 x 1 mm"),
        ((0.04, 0.04, 1), "0.04 x 0.04 x 1 mm"),
        ((1, 1, 21), "1 x 1 x 21 mm"),
        ((1000, 1000, 1000), "1000 x 1000 x 1000 mm"),
        ((10, 1, 1), "over 3010 x 5 x 4 mm"),
    ],
)
def test_a_grid_of_no_scanner_is_refused_by_its_size(tmp_path, spacing_mm, fragment):
    hu = np.resize(hounsfield(), (301, 5, 4))
    path = save(tmp_path / "ct.nii.gz", hu, np.diag([*spacing_mm, 1]))
    with refused(ValueError, str(path), fragment, "0.05 to 20 mm", "at most 3000 mm", "spacing"):
        read_ct([path])


@pytest.mark.parametrize("spacing_mm", [(0.05, 0.05, 0.05), (20, 20, 20), (0.4, 0.4, 10)])
def test_the_grid_of_any_scanner_is_read(tmp_path, spacing_mm):
    path = save(tmp_path / "ct.nii.gz", hounsfield(), np.diag([*spacing_mm, 1]))
    np.testing.assert_allclose(read_ct([path]).affine, np.diag([*spacing_mm, 1]))


def test_an_unknown_orientation_is_refused(tmp_path):
    image = nib.Nifti1Image(hounsfield(), None)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    image.to_filename(tmp_path / "ct.nii")
    with refused(ValueError, "left and right"):
        read_ct([tmp_path / "ct.nii"])


def test_micrometres_are_refused(tmp_path):
    image = nib.Nifti1Image(hounsfield(), np.eye(4))
    image.header.set_xyzt_units("micron")
    image.to_filename(tmp_path / "ct.nii")
    with pytest.raises(ValueError, match="affine is in microns"):
        read_ct([tmp_path / "ct.nii"])


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"not nifti", lambda b: gzip.compress(b"no")])
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    path = save(tmp_path / "ct.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20)))
    path.write_bytes(damage(path.read_bytes()))
    with refused(ValueError, "ct.nii.gz", "NIfTI"):
        read_ct([path])


def test_scans_are_named_after_their_path_and_excluded_by_pattern(tmp_path):
    save(tmp_path / "a" / "ct.nii.gz", hounsfield())
    save(tmp_path / "b" / "ct.nii", hounsfield())
    save(tmp_path / "b" / "Labels" / "ct.nii", hounsfield())
    save(tmp_path / ".hidden.nii", hounsfield())
    assert [s.name for s in find_scans(tmp_path, exclude=["*labels*"])] == ["a_ct", "b_ct"]


def test_two_scans_with_one_name_are_refused(tmp_path):
    save(tmp_path / "a" / "ct.nii", hounsfield())
    save(tmp_path / "a_ct.nii", hounsfield())
    with refused(ValueError, "'a_ct'", "a/ct.nii", "a_ct.nii"):
        find_scans(tmp_path)


@pytest.mark.parametrize("name", ["ct.NII.GZ", "CT.Nii", "ct.mha", "CT.NRRD"])
def test_suffixes_count_in_any_case(tmp_path, name):
    (tmp_path / name).touch()
    assert [s.name for s in find_scans(tmp_path)] == [name.split(".")[0]]


def test_a_header_and_its_voxels_are_one_scan_with_one_digest(tmp_path):
    (tmp_path / "ct.mhd").write_text("NDims = 3\nElementDataFile = ct.raw\n")
    (tmp_path / "ct.raw").write_bytes(b"voxels")
    (scan,) = find_scans(tmp_path)
    assert scan.files == (tmp_path / "ct.mhd", tmp_path / "ct.raw")
    before = scan.sha256()
    (tmp_path / "ct.raw").write_bytes(b"other voxels")
    assert scan.sha256() != before


def test_what_is_passed_over_is_counted_and_named(tmp_path, caplog):
    save(tmp_path / "ct.nii.gz", hounsfield())
    for name in ("notes.txt", "a/ct.mat", "a/excluded.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no CT")
    with caplog.at_level(logging.WARNING):
        find_scans(tmp_path, exclude=["*excluded*"])
    (line,) = caplog.messages
    assert "2 files" in line and "notes.txt" in line and "a/ct.mat" in line
    assert "excluded" not in line and "hidden" not in line and "ct.nii.gz" not in line


def test_where_every_file_is_a_scan_nothing_is_said(tmp_path, caplog):
    save(tmp_path / "ct.nii.gz", hounsfield())
    find_scans(tmp_path)
    assert not caplog.messages


def test_a_prepared_case_is_not_mistaken_for_a_scan(tmp_path):
    save(tmp_path / "case" / "ct.nii", hounsfield())
    (tmp_path / "case" / "geometry.json").write_text("{}")
    with pytest.raises(ValueError, match="a prepared case, not a scan"):
        find_scans(tmp_path)


def test_an_empty_or_missing_input_folder_is_refused(tmp_path):
    with refused(ValueError, "no CT", "--input"):
        find_scans(tmp_path)
    with pytest.raises(ValueError, match="give --input DIR"):
        find_scans(None)
