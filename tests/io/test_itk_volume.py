"""MetaImage and NRRD, against SimpleITK's and nibabel's reading of the same volume."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation
from tests.refusal import refused

from scripts.cases.scans import find_scans, read_ct
from scripts.io.itk_volume import ITK_SUFFIXES, read_itk_volume, voxel_file

pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__")
needs_itk = pytest.mark.slow
"""ITK takes about ten seconds of CPU, and more on a busy machine, to load its readers."""
DIRECTION = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
SPACING, ORIGIN = (0.7, 1.5, 3.0), (11.0, -22.0, 33.0)


def volume():
    """An oblique CT, ``[x, y, z]`` of shape (5, 4, 3)."""
    hu = np.random.default_rng(0).integers(-1000, 1500, (3, 4, 5)).astype(np.int16)
    image = sitk.GetImageFromArray(hu)
    image.SetDirection(DIRECTION.ravel())
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image


@needs_itk
@pytest.mark.parametrize("suffix", [*ITK_SUFFIXES, ".MHA", ".NRRD"])
def test_voxels_and_places_are_those_of_simpleitk_and_nibabel(tmp_path, suffix):
    sitk.WriteImage(volume(), tmp_path / f"ct{suffix.lower()}", useCompression=suffix == ".mhd")
    sitk.WriteImage(volume(), tmp_path / "ct.nii.gz")
    path = (tmp_path / f"ct{suffix.lower()}").rename(tmp_path / f"ct{suffix}")
    voxels, affine = read_itk_volume(path)
    twin = nib.load(tmp_path / "ct.nii.gz")
    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels, twin.get_fdata())
    np.testing.assert_allclose(affine, twin.affine, atol=1e-4)
    for index in [(0, 0, 0), (4, 1, 2)]:
        x, y, z = volume().TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(affine @ [*index, 1], [-x, -y, z, 1], atol=1e-4)


@needs_itk
def test_a_nrrd_in_ras_space_is_read_where_it_is(tmp_path):
    path = tmp_path / "ct.nrrd"
    sitk.WriteImage(volume(), path)
    expected = read_itk_volume(path)[1]
    header, _, voxels = path.read_bytes().partition(b"\n\n")
    lines = header.decode().split("\n")
    for k, line in enumerate(lines):
        if line.startswith("space:"):
            lines[k] = "space: right-anterior-superior"
        elif line.startswith("space directions:"):
            columns = expected[:3, :3].T.tolist()
            lines[k] = "space directions: " + " ".join(f"({x!r},{y!r},{z!r})" for x, y, z in columns)
        elif line.startswith("space origin:"):
            lines[k] = "space origin: ({!r},{!r},{!r})".format(*expected[:3, 3].tolist())
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + voxels)
    np.testing.assert_allclose(read_itk_volume(path)[1], expected, atol=1e-6)


@needs_itk
def test_a_ct_folder_of_them_is_found_and_read(tmp_path):
    sitk.WriteImage(volume(), tmp_path / "a.mhd")
    sitk.WriteImage(volume(), tmp_path / "b.nhdr")
    scans = find_scans(tmp_path)
    assert [scan.name for scan in scans] == ["a", "b"] and all(len(scan.files) == 2 for scan in scans)
    np.testing.assert_array_equal(*(read_ct(scan.files).hu for scan in scans))


def without(path, name):
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(name)))


def replaced(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("ct.mha", lambda p: without(p, b"TransformMatrix"), "no orientation.*TransformMatrix"),
        ("ct.nrrd", lambda p: without(p, b"space:"), "no orientation.*'space'"),
        ("ct.nrrd", lambda p: replaced(p, b"space directions", b"spacings"), "no orientation.*'space directions'"),
        ("ct.mha", lambda p: p.write_bytes(b""), "got no dimensions"),
        ("ct.mha", lambda p: replaced(p, b"NDims = 3", b"NDims = 2"), "got 2 dimensions"),
        ("ct.mhd", lambda p: p.with_suffix(".raw").unlink(), "ct.raw, .*copy both"),
        ("ct.mhd", lambda p: replaced(p, b"= ct.raw", b"= ../ct.raw"), "'../ct.raw'.*next to"),
        ("ct.mhd", lambda p: replaced(p, b"= ct.raw", b"= /etc/passwd"), "'/etc/passwd'.*next to"),
        ("ct.mhd", lambda p: replaced(p, b"= ct.raw", b"= LIST"), "'LIST'.*one file"),
        ("ct.nhdr", lambda p: replaced(p, b": ct.raw", b": ct%03d.raw 1 3 1"), "one file"),
    ],
)
def test_what_is_not_fully_stated_is_refused_by_name(tmp_path, name, damage, message):
    sitk.WriteImage(volume(), tmp_path / name)
    damage(tmp_path / name)
    with pytest.raises(ValueError, match=message) as refusal:
        read_itk_volume(tmp_path / name)
    assert str(refusal.value).startswith(f"{tmp_path / name}: ")


ELSEWHERE = b"../other.raw"
"""A file that the voxels must not come from."""
TRICKS = {
    "other case first": ("mhd", b"elementdatafile = LOCAL\nElementDataFile = " + ELSEWHERE),
    "colon": ("mhd", b"ElementDataFile: " + ELSEWHERE + b"\nElementDataFile = ct.raw"),
    "name and value on two lines": ("mhd", b"ElementDataFile\n= " + ELSEWHERE + b"\nElementDataFile = ct.raw"),
    "zero byte in the name": ("mhd", b"ElementDataFile\0x = " + ELSEWHERE + b"\nElementDataFile = ct.raw"),
    "line that looks blank": ("mhd", b"\x1c\nElementDataFile = ct.raw\nElementDataFile = " + ELSEWHERE),
    "list": ("mhd", b"ElementDataFile = LISTED\n" + (ELSEWHERE + b"\n") * 3),
    "long header": ("mhd", b"Comment = more\n" * 6000 + b"ElementDataFile = " + ELSEWHERE),
    "key and value first": ("nhdr", b"data file:=ct.raw\ndata file: " + ELSEWHERE),
    "old line end": ("nhdr", b"# no comment\rdata file: " + ELSEWHERE),
    "comments": ("nhdr", b"# more\n" * 10000 + b"data file: " + ELSEWHERE),
    "capitals": ("nhdr", b"Data File: " + ELSEWHERE),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_header_leads_the_reader_to_another_file(tmp_path, trick):
    """ITK reads the other file, whole or in part, for each of these headers."""
    suffix, lines = TRICKS[trick]
    path = tmp_path / "in" / f"ct.{suffix}"
    path.parent.mkdir()
    sitk.WriteImage(volume(), path)
    (tmp_path / "other.raw").write_bytes((tmp_path / "in" / "ct.raw").read_bytes())
    (tmp_path / "in" / "LISTED").touch()
    header = path.read_bytes()
    path.write_bytes(re.sub(rb"(ElementDataFile =|data file:) ct\.raw", lambda _: lines, header))
    assert path.read_bytes() != header
    with refused(ValueError, str(path)):
        read_itk_volume(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ct.mhd", lambda header: header.replace(b"\n", b"\r\n")),
        ("ct.mhd", lambda header: header.replace(b" = ", b": ")),
        ("ct.mhd", lambda header: b"Comment = M\xc3\xbcller: a = b\n\nModality =\n" + header),
        ("ct.nhdr", lambda header: header.replace(b"\n", b"\r\n")),
        ("ct.nhdr", lambda header: header.replace(b"data file", b"Data File")),
        ("ct.nhdr", lambda header: header.replace(b"space:", b"# data file: no\nkey:=data file: no\nspace:")),
    ],
)
def test_headers_of_other_programs_are_understood(tmp_path, name, change):
    path = tmp_path / name
    sitk.WriteImage(volume(), path)
    path.write_bytes(change(path.read_bytes()))
    assert voxel_file(path) == tmp_path / "ct.raw"
    assert sitk.ReadImage(path).GetSize() == volume().GetSize()


def test_a_direction_whose_name_itk_does_not_know_is_none(tmp_path):
    sitk.WriteImage(volume(), tmp_path / "ct.mha")
    replaced(tmp_path / "ct.mha", b"TransformMatrix", b"transformmatrix")
    with refused(ValueError, "ct.mha", "no orientation", "TransformMatrix"):
        read_itk_volume(tmp_path / "ct.mha")


@needs_itk
@pytest.mark.parametrize("name", ["ct.mha", "ct.nrrd"])
def test_a_truncated_file_is_refused_by_name(tmp_path, name):
    sitk.WriteImage(volume(), tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    with refused(ValueError, name, "not a readable volume", "again"):
        read_itk_volume(tmp_path / name)


def test_several_values_per_voxel_are_refused(tmp_path):
    sitk.WriteImage(sitk.Compose(volume(), volume()), tmp_path / "ct.mha")
    with refused(ValueError, "one value per voxel", "2 values"):
        read_itk_volume(tmp_path / "ct.mha")


def test_importing_the_reader_does_not_load_itks_readers():
    code = """
        import sys
        import scripts.io.itk_volume
        print([name for name in sys.modules if name.startswith("itk.itkImage")])
    """
    bundle = Path(__file__).parents[2] / "bundle"
    answer = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=bundle, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr
