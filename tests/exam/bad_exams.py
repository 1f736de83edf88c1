"""Exams that must be refused, each made from good radiographs of the demonstration case and then damaged."""

import gzip
import io
import json
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch.nn.functional as F
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForProcessing,
    JPEGLSLossless,
    UltrasoundImageStorage,
)
from tests.dicom.dicom_files import compressed

from scripts.dicom.write_radiograph import FORMS, simulated_header, write_dx
from scripts.exam.views import BOTH, ViewChoice
from scripts.geometry import VIEWS, read_geometry
from scripts.io.case import read_case

DEMO = Path(__file__).parents[2] / "bundle" / "docs" / "demo"
GEOMETRY = read_geometry(DEMO / "geometry.json").coarser()
LINE_INTEGRALS = dict(zip(VIEWS, F.avg_pool2d(read_case(DEMO).line_integrals, 2).numpy(), strict=True))
TOLD = {
    "source_to_isocentre_mm": 785.0,
    "source_to_detector_mm": 1200.0,
    "pixel_spacing_mm": GEOMETRY.detector_spacing_mm,
    "orientation": {"frontal": "LF", "lateral": "PF"},
    "source_side": {"frontal": "anterior", "lateral": "right"},
}
"""How the demonstration case was taken, as options tell it."""
NOT_STATED = dict.fromkeys(
    [
        "ViewPosition",
        "ViewCodeSequence",
        "PositionerPrimaryAngle",
        "PositionerSecondaryAngle",
        "PatientOrientation",
    ]
)
"""Changes after which a header no longer tells its view."""
_DISTANCES = dict.fromkeys(["DistanceSourceToPatient", "EstimatedRadiographicMagnificationFactor"])
Make = Callable[[Path], Any]


class BadExam(NamedTuple):
    """An exam to refuse.

    Attributes:
        name: of the damage.
        make: writes the exam into an empty folder called ``exam`` and returns its source; None stands for the folder.
        message: regular expression of the refusal: whom it names, the rule, and the remedy.
        choice: the views that are wanted of it.
    """

    name: str
    make: Make
    message: str
    choice: ViewChoice = BOTH


def write_films(folder: Path, **changes: dict[str, Any]) -> None:
    """Both views as DICOM; ``changes`` by view are attributes by keyword, of which None leaves one out."""
    header = simulated_header("demo", "exam")
    for view, pixels in LINE_INTEGRALS.items():
        path = folder / f"{view}.dcm"
        write_dx(path, pixels, view, GEOMETRY, header, FORMS["processing"])
        if view in changes:
            change(path, **changes[view])


def change(path: Path, **changes: Any) -> None:
    """Rewrite attributes of a DICOM file."""
    dataset = dcmread(path)
    for keyword, value in changes.items():
        if keyword == "TransferSyntaxUID":
            dataset.file_meta.TransferSyntaxUID = value
        elif value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    dataset.save_as(path, implicit_vr=False, little_endian=True)


def grey(view: str) -> np.ndarray:
    """A view as a picture has it, upright, 16 bits."""
    pixels = LINE_INTEGRALS[view][::-1, ::-1].T
    return np.rint(pixels / pixels.max() * 65535).astype(np.uint16)


def write_pictures(folder: Path) -> None:
    """Both views as PNG, and how they were taken."""
    for view in VIEWS:
        Image.fromarray(grey(view)).save(folder / f"{view}.png")
    (folder / "acquisition.json").write_text(json.dumps(TOLD))


def write_nifti(path: Path, pixels: np.ndarray) -> None:
    """An array as NIfTI with the pitch of the demonstration case."""
    nib.save(nib.Nifti1Image(pixels, np.diag([GEOMETRY.detector_spacing_mm] * 2 + [1, 1])), path)


def zipped(folder: Path) -> bytes:
    """A good exam in a zip."""
    write_films(folder)
    return packed([(f"{view}.dcm", (folder / f"{view}.dcm").read_bytes()) for view in VIEWS])


def packed(entries: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these entries, whatever their names."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return data.getvalue()


def _headers(**changes: dict[str, Any]) -> Make:
    return lambda folder: write_films(folder, **changes)


def _frontal(**changes: Any) -> Make:
    return _headers(frontal=changes)


def _both(**changes: Any) -> Make:
    return _headers(frontal=changes, lateral=changes)


def _frontal_bytes(damage: Callable[[bytes], bytes]) -> Make:
    """DICOM exam whose frontal file is damaged as a string of bytes."""

    def make(folder: Path) -> None:
        write_films(folder)
        path = folder / "frontal.dcm"
        path.write_bytes(damage(path.read_bytes()))

    return make


def _beside(text: str | bytes) -> Make:
    """Good films with this ``acquisition.json``."""

    def make(folder: Path) -> None:
        write_films(folder)
        (folder / "acquisition.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


def _told(**values: Any) -> Make:
    return _beside(json.dumps(values))


def _picture(save: Callable[[Path], Any], suffix: str = "png") -> Make:
    """A pair whose frontal picture ``save`` makes, given by view, so that no file is passed over."""

    def make(folder: Path) -> dict[str, str]:
        write_pictures(folder)
        (folder / "frontal.png").unlink()
        save(folder / f"frontal.{suffix}")
        return {"frontal": str(folder / f"frontal.{suffix}"), "lateral": str(folder / "lateral.png")}

    return make


def _pixels(pixels: np.ndarray, suffix: str = "png", **options: Any) -> Make:
    return _picture(lambda path: Image.fromarray(pixels).save(path, **options), suffix)


def _nifti(pixels: np.ndarray, name: str = "packed.nii.gz") -> Make:
    def make(folder: Path) -> None:
        write_nifti(folder / name, pixels)
        (folder / "acquisition.json").write_text(json.dumps(TOLD))

    return make


def _packed() -> np.ndarray:
    return np.stack(list(LINE_INTEGRALS.values()), -1)


def _one_pixel(value: float) -> np.ndarray:
    pixels = _packed()
    pixels[50, 60, 0] = value
    return pixels


def _nifti_header(offset: int, form: str, *values: float) -> Make:
    """A packed file, uncompressed, with a lie in its header."""

    def make(folder: Path) -> None:
        _nifti(_packed(), "packed.nii")(folder)
        data = bytearray((folder / "packed.nii").read_bytes())
        struct.pack_into(form, data, offset, *values)
        (folder / "packed.nii").write_bytes(data)

    return make


def _zip(damage: Callable[[bytes], bytes] = bytes, entries: list | None = None, method: int = zipfile.ZIP_DEFLATED):
    """A zip: a good exam and further entries, its bytes then damaged."""

    def make(folder: Path) -> str:
        data = zipped(folder)
        if entries is not None:
            films = [(f"{view}.dcm", (folder / f"{view}.dcm").read_bytes()) for view in VIEWS]
            data = packed([*films, *entries], method)
        shutil.rmtree(folder)
        folder.with_suffix(".zip").write_bytes(damage(data))
        return str(folder.with_suffix(".zip"))

    return make


def _case(file: str, damage: Callable[[Path], Any]) -> Make:
    """The demonstration case with one file damaged."""

    def make(folder: Path) -> None:
        shutil.copytree(DEMO, folder, dirs_exist_ok=True)
        damage(folder / file)

    return make


def _geometry(**values: Any) -> Make:
    text = json.dumps({**json.loads((DEMO / "geometry.json").read_text()), **values})
    return _case("geometry.json", lambda path: path.write_text(text))


def _list(text: str) -> Make:
    """A list of exams."""

    def make(folder: Path) -> str:
        (folder / "exams.json").write_text(text)
        return str(folder / "exams.json")

    return make


def _after(write: Make, *steps: Callable[[Path], Any]) -> Make:
    """``write`` and then, in turn, what is done to the folder; the last one returns the source."""

    def make(folder: Path) -> Any:
        source = write(folder)
        for step in steps:
            source = step(folder)
        return source

    return make


def _by_view(frontal: str, lateral: str) -> Callable[[Path], dict[str, str]]:
    return lambda folder: {"frontal": str(folder / frontal), "lateral": str(folder / lateral)}


def _third_film(folder: Path) -> None:
    shutil.copy(folder / "frontal.dcm", folder / "again.dcm")


def _one_view_twice(view: str) -> Make:
    """Two different films of one view."""

    def make(folder: Path) -> None:
        write_films(folder)
        other = next(name for name in VIEWS if name != view)
        shutil.copy(folder / f"{view}.dcm", folder / f"{other}.dcm")
        pixels = dcmread(folder / f"{other}.dcm").pixel_array
        change(folder / f"{other}.dcm", PixelData=(pixels // 2 + 1).tobytes())

    return make


def _renamed(folder: Path) -> None:
    for view, name in zip(VIEWS, ("a", "b"), strict=True):
        (folder / f"{view}.dcm").rename(folder / f"{name}.dcm")


def _replaced(name: str, put: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Another thing in the place of a file."""

    def step(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        put(folder / name)

    return step


def _line_break(folder: Path) -> None:
    (folder / "lateral.dcm").unlink()
    (folder / "lateral\nerror: none.dcm").write_text("X")


def _broken_jpegls(folder: Path) -> None:
    write_films(folder)
    dataset = dcmread(folder / "frontal.dcm")
    small = compressed(dataset, JPEGLSLossless)
    small.PixelData = small.PixelData[:200] + b"\xff\xd9" * 500
    small.save_as(folder / "frontal.dcm")


def _short_lut() -> Dataset:
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [65535, 0, 300])
    lut.add_new("LUTData", "US", [1, 2])
    return lut


def _meta_of_a_million_elements(data: bytes) -> bytes:
    start = data.index(b"DICM") + 4
    return data[:start] + b"\x02\x00\x01\x01UI\x00\x00" * 10**6 + data[start:]


def _called_rle(data: bytes) -> bytes:
    return data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0", 1)


def _png_declaring(width: int, height: int) -> bytes:
    header = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _animated(path: Path) -> None:
    first, second = (Image.fromarray((grey(view) >> 8).astype(np.uint8)) for view in VIEWS)
    first.save(path, save_all=True, append_images=[second])


def _jpeg(path: Path) -> None:
    Image.fromarray((grey("frontal") >> 8).astype(np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _colour() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)


def _float(value: float) -> np.ndarray:
    pixels = grey("frontal").astype(np.float32)
    pixels[5, 5] = value
    return pixels


def _saturated() -> np.ndarray:
    pixels = grey("frontal")
    pixels[20:-20, 20:-20] = 65535
    return pixels


def _special(name: str, kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (kind | 0o777) << 16
    return entry


def _encrypted(data: bytes) -> bytes:
    damaged = bytearray(data)
    damaged[damaged.index(b"PK\x01\x02") + 8] |= 1
    return bytes(damaged)


def _gzipped_nifti(path: Path, side: int, form: type) -> None:
    """A square file of zeros as large as it says."""
    header = nib.Nifti1Header()
    header.set_data_dtype(form)
    header.set_data_shape((side, side))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_zooms([GEOMETRY.detector_spacing_mm] * 2)
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4 + side * side * np.dtype(form).itemsize), 1))


_DICOM = [
    BadExam(
        "fewer bytes than rows", _frontal(Rows=512), r"frontal\.dcm: .*32768 bytes present, 131072 declared.*; exp"
    ),
    BadExam("more bytes than columns", _frontal(Columns=64), r"frontal\.dcm: .*32768 bytes present, 16384 .*; export"),
    BadExam("no rows", _frontal(Rows=0), r"frontal\.dcm: 0 x 128 pixels, .* at least 64 .*; give the image in full"),
    BadExam("huge", _frontal(Rows=65535, Columns=65535), r"frontal\.dcm: 65535 x 65535 pixels, at most .*; resample"),
    BadExam(
        "two values of rows", _frontal(Rows=[128, 128]), r"frontal\.dcm: Rows is \[128, 128\], .*; export it again"
    ),
    BadExam("no columns", _frontal(Columns=None), r"frontal\.dcm: Columns is None, .*; export it again"),
    BadExam("32 bits", _frontal(BitsAllocated=32), r"frontal\.dcm: BitsAllocated 32, .*: export it again"),
    BadExam("8 bits allocated, 16 stored", _frontal(BitsAllocated=8), r"frontal\.dcm: BitsAllocated 8, .*: export it"),
    BadExam("high bit too low", _frontal(HighBit=3), r"frontal\.dcm: .* HighBit 3; .*: export it again"),
    BadExam("two frames", _frontal(NumberOfFrames=2), r"frontal\.dcm: 2 frames, got frame None; choose one, .*--frame"),
    BadExam("2e9 frames", _frontal(NumberOfFrames=2**31 - 1), r"frontal\.dcm: 2147483647 frames, .*; choose .*--frame"),
    BadExam("no frames", _frontal(NumberOfFrames=-1), r"frontal\.dcm: -1 frames, got frame None; choose one"),
    BadExam("half the pixels", _frontal(PixelData=bytes(16384)), r"frontal\.dcm: .*16384 bytes present, .*; export it"),
    BadExam("no pixels", _frontal(PixelData=None), r"frontal\.dcm: no pixel data: .*; copy or export it again"),
    BadExam(
        "cut in the preamble", _frontal_bytes(lambda d: d[:100]), r"frontal\.dcm: starts with .*; export it as one"
    ),
    BadExam("cut in the header", _frontal_bytes(lambda d: d[:600]), r"frontal\.dcm: .*; (export|copy|leave)"),
    BadExam("cut in the pixels", _frontal_bytes(lambda d: d[:-9999]), r"frontal\.dcm: .*; (export|copy)"),
    BadExam("CT", _frontal(SOPClassUID=CTImageStorage, Modality="CT"), r"frontal\.dcm: Modality 'CT' .*; leave it out"),
    BadExam(
        "localizer",
        _frontal(SOPClassUID=CTImageStorage, Modality="CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        r"frontal\.dcm: Modality 'CT' .* CT localizer has another geometry\); leave it out",
    ),
    BadExam(
        "mammogram",
        _frontal(SOPClassUID=DigitalMammographyXRayImageStorageForProcessing, Modality="MG"),
        r"frontal\.dcm: Modality 'MG' .*; leave it out",
    ),
    BadExam("ultrasound", _frontal(SOPClassUID=UltrasoundImageStorage, Modality="US"), r"frontal\.dcm: .*; leave it"),
    BadExam("structured report", _frontal(Modality="SR"), r"frontal\.dcm: Modality 'SR' .*; leave it out"),
    BadExam(
        "modality of 100 kB", _frontal(Modality="X" * 10**5), r"frontal\.dcm: Modality .*XXX \.\.\. XXX.*; leave it out"
    ),
    BadExam("class like a path", _frontal(SOPClassUID="../../etc/passwd"), r"frontal\.dcm: Modality 'DX' .*; leave it"),
    BadExam("colour", _frontal(SamplesPerPixel=3), r"frontal\.dcm: 3 samples per pixel, .*: export the original"),
    BadExam(
        "lines in an attribute", _frontal(PhotometricInterpretation="A\nB"), r"frontal\.dcm: 1 sample.*: export the ori"
    ),
    BadExam("syntax like a path", _frontal(TransferSyntaxUID="../../etc"), r"frontal\.dcm: .*; (copy|export)"),
    BadExam("raw as run lengths", _frontal_bytes(_called_rle), r"frontal\.dcm: its pixels, .* cannot be .*; export it"),
    BadExam(
        "deflated", _frontal(TransferSyntaxUID=DeflatedExplicitVRLittleEndian), r"frontal\.dcm: .*; copy or export"
    ),
    BadExam(
        "corrupt codestream", _broken_jpegls, r"frontal\.dcm: its pixels, .* cannot be decoded .*; export it again"
    ),
    BadExam("constant", _frontal(PixelData=b"\x10\x27" * 128**2), r"frontal\.dcm: every pixel is .*; a constant image"),
    BadExam("slope 0", _frontal(RescaleSlope=0), r"frontal\.dcm: every pixel is .*; a constant image shows no patient"),
    BadExam("slope 1e300", _frontal(RescaleSlope=1e300), r"frontal\.dcm: \d+ pixels are NaN or infinite; export it"),
    BadExam("slope NaN", _frontal(RescaleSlope="nan"), r"frontal\.dcm: .*; (export|copy)"),
    BadExam(
        "lying LUT", _frontal(ModalityLUTSequence=[_short_lut()]), r"frontal\.dcm: .*LUT cannot be applied .*; exp"
    ),
    BadExam(
        "a million elements of file meta", _frontal_bytes(_meta_of_a_million_elements), r"frontal\.dcm: .*; copy or exp"
    ),
]
_PAIRS = [
    *(
        BadExam(
            f"two patients by {keyword}",
            _headers(frontal={keyword: first}, lateral={keyword: second}),
            rf"frontal\.dcm, .*lateral\.dcm: two patients, by {keyword}; give two views of one patient",
        )
        for keyword, first, second in [
            ("PatientID", "demo", "other"),
            ("PatientName", "A^B", "C^D"),
            ("PatientBirthDate", "19500101", "19510101"),
        ]
    ),
    *(
        BadExam(
            f"two {view} views", _one_view_twice(view), rf"both are {view} views; an exam is one frontal and one la"
        )
        for view in VIEWS
    ),
    BadExam(
        "one film",
        _after(write_films, lambda f: (f / "lateral.dcm").unlink()),
        r"exam: an exam is two radiographs, .* got 1 \(.*frontal\.dcm\); leave the two alone, or name them",
    ),
    BadExam(
        "three films", _after(write_films, _third_film), r"exam: an exam is two .* got 3 \(.*\); leave the two alone"
    ),
    BadExam(
        "40 films",
        lambda f: [shutil.copy(DEMO / "frontal.nii.gz", f / f"{i:02}.nii.gz") for i in range(40)] and None,
        r"exam: an exam is two radiographs, .* got 40 \(.*, \.\.\.\); leave the two alone",
    ),
    BadExam(
        "one file twice",
        _after(write_films, lambda f: [str(f / "frontal.dcm")] * 2),
        r"frontal\.dcm: both are frontal views; an exam is one frontal and one lateral view",
    ),
    BadExam(
        "one picture as both views",
        _after(write_pictures, _by_view("frontal.png", "frontal.png")),
        r"frontal\.png: the same image twice; give two different views",
    ),
    BadExam(
        "exchanged views",
        _after(write_films, _by_view("lateral.dcm", "frontal.dcm")),
        r"lateral\.dcm: given as the frontal view, but .* lateral one; exchange --frontal and --lateral",
    ),
    BadExam(
        "a packed file as one view",
        _after(_nifti(_packed()), _by_view("packed.nii.gz", "packed.nii.gz")),
        r"packed\.nii\.gz: holds 2 radiographs; give it alone",
    ),
    BadExam(
        "neither header nor name tells the view",
        _after(_both(**NOT_STATED), _renamed),
        r"a\.dcm: neither the file nor its name tells .*; give the two files by --frontal and --lateral",
    ),
    BadExam(
        "a header of two minds", _frontal(ViewPosition="LL"), r"frontal\.dcm: .* contradicts itself .*; correct it"
    ),
    BadExam(
        "oblique", _frontal(ViewPosition="LAO"), r"frontal\.dcm: an oblique projection .*; give a frontal and a lat"
    ),
]
_GEOMETRY = [
    BadExam(
        "no distance to detector", _both(DistanceSourceToDetector=None), r"l\.dcm: .*Give .*--source_to_detector_mm"
    ),
    BadExam(
        "no distance to patient", _both(**_DISTANCES), r"frontal\.dcm, .*\. Give --source_to_isocentre_mm \(frontal "
    ),
    BadExam("no pitch", _frontal(ImagerPixelSpacing=None), r"frontal\.dcm, .*\. Give --pixel_spacing_mm \(frontal\)"),
    BadExam(
        "no orientation",
        _headers(lateral={"PatientOrientation": None}),
        r"lateral\.dcm: geometry is missing, .*\. Give --orientation \(lateral\)",
    ),
    BadExam("no view, so no side", _frontal(**NOT_STATED), r"frontal\.dcm, .*\. Give --orientation .*; --source_side"),
    *(
        BadExam(
            f"source to detector {value} in the header",
            _frontal(DistanceSourceToDetector=value),
            r"frontal\.dcm, .*\. Give .*--source_to_detector_mm \(frontal\)",
        )
        for value in ("0", "-1200", "nan", "inf")
    ),
    BadExam(
        "the patient behind the detector",
        _frontal(DistanceSourceToDetector=700, EstimatedRadiographicMagnificationFactor=None),
        r"frontal\.dcm.*Give --source_to_isocentre_mm \(frontal\)",
    ),
    *(
        BadExam(f"told {name} {value}", _told(**{name: value}), rf"exam.*{name} is .*, like .*; got {found}")
        for name, value, found in [
            ("source_to_isocentre_mm", -785, "-785"),
            ("source_to_isocentre_mm", 0, "0"),
            ("source_to_isocentre_mm", float("nan"), "nan"),
            ("source_to_isocentre_mm", "far", "'far'"),
            ("source_to_isocentre_mm", True, "True"),
            ("source_to_isocentre_mm", [785], r"\[785\]"),
            ("source_to_detector_mm", 10**400, "1000"),
            ("pixel_spacing_mm", [0, 1], r"\[0, 1\]"),
            ("pixel_spacing_mm", [1, 2, 3], r"\[1, 2, 3\]"),
            ("pixel_spacing_mm", 1e9, "1000000000"),
            ("orientation", "LR", "'LR'"),
            ("orientation", ["L", "F"], r"\['L', 'F'\]"),
            ("source_side", "above", "'above'"),
            ("source_side", 5, "5"),
            ("centre", 5, "5"),
            ("centre", "12", "'12'"),
            ("centre", [float("inf"), 0], r"\[inf, 0\]"),
            ("rotation_deg", 1e6, "1000000"),
            ("angle_deg", "x" * 10**5, "'xxx"),
        ]
    ),
    BadExam(
        "told by another view", _told(centre={"top": [1, 1]}), r"exam.*centre: a mapping by view needs the keys .*, got"
    ),
    BadExam(
        "told one side for both", _told(source_side="right"), r"exam.*cannot be of a frontal view, .*; give --source"
    ),
    BadExam(
        "detector before the isocentre",
        _told(source_to_isocentre_mm=1200, source_to_detector_mm=785),
        r"frontal\.dcm: .*detector .*behind the isocentre, .*785 .*1200; correct",
    ),
    BadExam(
        "a parallel beam of a finite detector",
        _told(source_to_isocentre_mm="inf"),
        r"frontal\.dcm: .*or both at infinity, .*; correct",
    ),
    BadExam("far off", _told(centre=[9999, 9999]), r"exam.*frontal film: shows 0% .*: correct these, or take a larger"),
    BadExam(
        "too small a film", _told(pixel_spacing_mm=1), r"exam.*frontal film: shows \d+% .*: correct these, or take a"
    ),
    BadExam(
        "a tiny magnified field",
        _told(source_to_isocentre_mm=1e-300),
        "exam: .*: --source_to_isocentre_mm is 1e-300 mm, nearer",
    ),
    BadExam(
        "45 degrees off", _frontal(PositionerPrimaryAngle=135), r"exam: frontal view: 45\.0 degrees off .*: correct it"
    ),
    BadExam(
        "tilted by 45 degrees",
        _frontal(PositionerSecondaryAngle=45),
        r"exam: frontal view: 45\.0 degrees off its axis; at most 10 degrees are accepted: correct it",
    ),
    BadExam(
        "told 45 degrees off", _told(angle_deg={"lateral": 45}), r"exam: lateral view: 45\.0 degrees .*: correct it"
    ),
    BadExam(
        "too near", _told(source_to_isocentre_mm=300), r"exam: .* at most .* mm are accepted: correct it, or train"
    ),
    *(
        BadExam(f"acquisition.json {name}", _beside(text), message)
        for name, text, message in [
            ("a list", "[]", r"acquisition\.json: expected an object with the names of options, got list"),
            ("cut short", "{", r"acquisition\.json: not JSON \(.*\)"),
            ("empty", "", r"acquisition\.json: .*; copy"),
            ("not text", b"\xff\xfe\xfa", r"acquisition\.json: not JSON \(.*\)"),
            ("nested 100000 times", "[" * 100_000, r"acquisition\.json: not JSON \(.*\)"),
            ("of an unknown option", '{"sid": 3}', r"exam.*: no such option: sid; choose from source_to_isocentre_mm"),
            ("of an option with a line break", '{"a\\nerror: b": 3}', r"exam.*: no such option: a.*; choose from"),
            ("of an option of 100 kB", json.dumps({"x" * 10**5: 3}), r"exam.*: no such option: xxx.*; choose from"),
        ]
    ),
]
_PICTURES = [
    BadExam(
        "geometry untold", _after(write_pictures, _by_view("frontal.png", "lateral.png")), r"frontal\.png, .*\. Give"
    ),
    BadExam(
        "an empty picture among others",
        _after(write_pictures, _replaced("frontal.png", Path.touch)),
        r"frontal\.png: an empty file; copy",
    ),
    BadExam("coloured", _pixels(_colour()), r"frontal\.png: a colour picture .*: save the original"),
    BadExam(
        "palette", _picture(lambda p: Image.fromarray(_colour()).quantize(64).save(p)), r"frontal\.png: a colour .*:"
    ),
    BadExam(
        "transparent", _pixels(np.dstack([_colour(), grey("frontal") >> 8]).astype(np.uint8)), r"frontal\.png: .*; s"
    ),
    BadExam(
        "bilevel", _picture(lambda p: Image.new("1", (128, 128)).save(p)), r"frontal\.png: .*mode '1'; save it as gr"
    ),
    BadExam("1 x 1", _pixels(np.ones((1, 1), np.uint8)), r"frontal\.png: 1 x 1 pixels, .*; give the image in full res"),
    BadExam("black", _pixels(np.zeros((128, 128), np.uint8)), r"frontal\.png: every pixel is 0; a constant image"),
    BadExam("overexposed", _pixels(_saturated()), r"frontal\.png: saturated: .*; export it unclipped or use another"),
    BadExam(
        "animated PNG", _picture(_animated), r"frontal\.png: several images in one PNG; store the radiograph alone"
    ),
    BadExam(
        "animated GIF", _picture(_animated, "gif"), r"frontal\.gif: starts with b'GIF8.*; export it as one of them"
    ),
    BadExam(
        "two pages", _picture(_animated, "tif"), r"frontal\.tif: several images in one TIFF; store the radiograph al"
    ),
    BadExam("NaN", _pixels(_float(np.nan), "tif"), r"frontal\.tif: 1 pixels are NaN or infinite; export it again"),
    BadExam("infinite", _pixels(_float(np.inf), "tif"), r"frontal\.tif: 1 pixels are NaN or infinite; export it again"),
    BadExam(
        "half a JPEG", _picture(_jpeg, "jpg"), r"frontal\.jpg: not a readable picture .*; copy or save it again as"
    ),
    BadExam(
        "a decompression bomb",
        _picture(lambda p: p.write_bytes(_png_declaring(60_000, 60_000))),
        r"frontal\.png: not a readable picture .*; copy or save it again",
    ),
    BadExam(
        "more pixels than are read",
        _picture(lambda p: p.write_bytes(_png_declaring(9000, 9000))),
        r"frontal\.png: 9000 x 9000 pixels, at most .*; resample the image",
    ),
    BadExam(
        "pixels missing",
        _picture(lambda p: p.write_bytes(_png_declaring(128, 128))),
        r"frontal\.png: not a readable picture .*; copy or save it again",
    ),
    BadExam(
        "cut PNG", _picture(lambda p: p.write_bytes(_png_declaring(99, 99)[:20])), r"frontal\.png: not a rea.*; copy"
    ),
]
_NIFTI = [
    BadExam("a volume", _nifti(np.zeros((64, 64, 5), np.float32)), r"packed\.nii\.gz: .* got shape .*: give two files"),
    BadExam("one NaN", _nifti(_one_pixel(np.nan)), r"packed\.nii\.gz: 1 pixels are NaN or infinite; export it again"),
    BadExam("one infinity", _nifti(_one_pixel(-np.inf)), r"packed\.nii\.gz: 1 pixels are NaN or infinite; export it"),
    BadExam("counts", _nifti(_packed() * 1000), r"packed\.nii\.gz: pixels must be line integrals .*; convert detector"),
    BadExam("flat", _nifti(np.ones((64, 64, 2), np.float32)), r"packed\.nii\.gz: every pixel is 1.0; a constant image"),
    BadExam("no pixels in NIfTI", _nifti_header(40, "<4h", 3, 0, 128, 2), r"packed\.nii: .*shape .*: give two files"),
    BadExam("negative pixels", _nifti_header(40, "<4h", 3, -9, 128, 2), r"packed\.nii: .*[:;] (give|copy)"),
    BadExam(
        "32767 pixels", _nifti_header(40, "<4h", 3, 32767, 32767, 2), r"packed\.nii: 32767 x .*; resample the image"
    ),
    BadExam(
        "too few bytes", _nifti_header(40, "<4h", 3, 4096, 4096, 2), r"packed\.nii: declares .* and holds .*; copy"
    ),
    BadExam("nine dimensions", _nifti_header(40, "<h", 9), r"packed\.nii: .*[:;] (give|copy)"),
    BadExam("an unknown kind of number", _nifti_header(70, "<h", 12345), r"packed\.nii: not a readable NIfTI .*; copy"),
    BadExam("triples of colour", _nifti_header(70, "<h", 128), r"packed\.nii: .*; (copy|convert)"),
    BadExam("pixels far away", _nifti_header(108, "<f", 1e30), r"packed\.nii: .*; copy or export it again"),
    BadExam("pitch 0", _nifti_header(76, "<3f", 1, 0, 0), r"packed\.nii: the pixel pitch, pixdim, is 0 mm; set it"),
    BadExam(
        "pitch NaN", _nifti_header(76, "<3f", 1, np.nan, 1), r"packed\.nii: pixel_spacing_mm is a positive .*; got "
    ),
    BadExam(
        "a mirrored affine",
        _nifti_header(280, "<12f", -2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0),
        r"packed\.nii: by its affine, .* point to L and A; .*: flip or swap its axes, or .*set sform_code",
    ),
    BadExam("in micrometres", _nifti_header(123, "<B", 3), r"packed\.nii: the pixel pitch is in microns; convert it"),
    BadExam(
        "a cut gzip",
        _after(_nifti(_packed()), lambda f: os.truncate(f / "packed.nii.gz", 5000)),
        r"packed\.nii\.gz: .*; copy or export it again",
    ),
    BadExam(
        "a gzip bomb", _after(lambda f: _gzipped_nifti(f / "x.nii.gz", 5000, np.uint8)), r"x\.nii\.gz: unpacks .*; gi"
    ),
    BadExam(
        "text called NIfTI", lambda f: (f / "x.nii.gz").write_text("text") and None, r"x\.nii\.gz: not a read.*; copy"
    ),
]
_ZIPS = [
    BadExam(
        "a zip of too much", _zip(entries=[("x", bytes(2**24))]), r"exam\.zip: unpacks to more .*; pack only the two"
    ),
    BadExam(
        "a zip of many", _zip(entries=[(f"{i}", b"") for i in range(1000)]), r"exam\.zip: holds 1002 files, .*; pack"
    ),
    *(
        BadExam(
            f"zip entry {entry}", _zip(entries=[(entry, b"1")]), r"exam\.zip: entry .* could leave the .*; pack plain"
        )
        for entry in ("../../slip.dcm", "a/../../slip", "/tmp/slip.dcm", "C:/slip.dcm", "..\\slip.dcm")
    ),
    BadExam(
        "a link in a zip", _zip(entries=[(_special("l", stat.S_IFLNK), b"/etc")]), r"exam\.zip: .* is a link .*; pack"
    ),
    BadExam("a pipe in a zip", _zip(entries=[(_special("p", stat.S_IFIFO), b"")]), r"exam\.zip: .* is a link .*; pack"),
    BadExam(
        "a zip in a zip", _zip(entries=[("more.zip", packed([]))]), r"exam\.zip: .* is itself an archive; pack the ra"
    ),
    BadExam("an encrypted zip", _zip(_encrypted), r"exam\.zip: entry 'frontal\.dcm' is encrypted; pack it without"),
    BadExam("an unusual method", _zip(entries=[], method=zipfile.ZIP_LZMA), r"exam\.zip: .*deflate.* pack"),
    BadExam(
        "folders without end in a zip",
        _zip(entries=[("a/" * depth + "x", b"1") for depth in (400, 800, 1200, 1600)]),
        r"exam\.zip: an entry's path has 401 parts, .*; pack",
    ),
    BadExam(
        "a file as a folder in a zip", _zip(entries=[("x", b"1"), ("x/y", b"1")]), r"exam\.zip: entry .*; pack every"
    ),
    BadExam("a long name in a zip", _zip(entries=[("x" * 5000, b"1")]), r"exam\.zip: entry .*; pack every file once"),
    BadExam(
        "lines in a zip's name", _zip(entries=[("a\nb.dcm", b"1")]), r"exam\.zip: an exam is two .*; leave the two"
    ),
    BadExam("half a zip", _zip(lambda d: d[: len(d) // 2]), r"exam\.zip: not a readable zip .*; pack or copy it again"),
    BadExam(
        "bytes lost in a zip", _zip(lambda d: d[:999] + d[1100:]), r"exam\.zip: not a readable zip .*; pack or copy"
    ),
    BadExam("text called zip", _zip(lambda d: b"text"), r"exam\.zip: not a readable zip .*; pack or copy it again"),
    BadExam(
        "an empty zip", _zip(lambda d: packed([])), r"exam\.zip: an exam is two radiographs, .* got 0; leave the two"
    ),
    BadExam("a zip of no bytes", _zip(lambda d: b""), r"exam\.zip: an empty file; copy or export it again"),
    BadExam(
        "damage inside a zip",
        _zip(lambda d: packed([("frontal.dcm", b"text"), ("lateral.dcm", b"text")])),
        r"exam\.zip/frontal\.dcm: starts with b'text', .*; export it as one of them",
    ),
]
_CASES = [
    BadExam(
        "geometry.json cut", _case("geometry.json", lambda p: os.truncate(p, 9)), r"geometry\.json: not a JSON geometry"
    ),
    BadExam(
        "geometry.json a list", _case("geometry.json", lambda p: p.write_text("[]")), r"geometry\.json: a geometry is"
    ),
    BadExam(
        "geometry.json {}",
        _case("geometry.json", lambda p: p.write_text("{}")),
        r"geometry\.json: missing .*\['detector_pixels",
    ),
    BadExam("unknown field", _geometry(sid=3), r"geometry\.json: missing geometry fields \[\], unknown .*\['sid'\]"),
    BadExam(
        "negative field", _geometry(source_to_isocentre_mm=-1), r"geometry\.json: .* must be a positive .*, got -1"
    ),
    BadExam(
        "NaN field", _geometry(volume_spacing_mm=float("nan")), r"geometry\.json: .* must be a positive .*, got nan"
    ),
    BadExam("text for shape", _geometry(volume_shape="large"), r"geometry\.json: .* three counts, .*, got 'large'"),
    BadExam(
        "source in the patient", _geometry(source_to_isocentre_mm=100), r"geometry\.json: .* inside the .*; move the"
    ),
    BadExam(
        "detector in front", _geometry(source_to_detector_mm=700), r"geometry\.json: .* in front of .*; source_to_det"
    ),
    BadExam(
        "other pixels", _geometry(detector_pixels=64), r"frontal\.nii\.gz: 256 x 256 pixels, .*; resample the image"
    ),
    BadExam(
        "other pitch", _geometry(detector_spacing_mm=2), r"frontal\.nii\.gz: pixels of 2\.4 mm, .*; correct the one"
    ),
    BadExam(
        "geometry.json nested", _case("geometry.json", lambda p: p.write_text("[" * 10**5)), r"geometry\.json: not a"
    ),
    BadExam("an immense field", _geometry(volume_spacing_mm=10**400), r"geometry\.json: "),
    BadExam(
        "a view missing", _case("lateral.nii.gz", os.unlink), r"lateral\.nii\.gz: the lateral view is missing; a cas"
    ),
    BadExam(
        "a view twice",
        _case("lateral.nii.gz", lambda p: shutil.copy(DEMO / "frontal.nii.gz", p)),
        r"lateral\.nii\.gz: identical to frontal\.nii\.gz; give two orthogonal views",
    ),
    BadExam(
        "a view cut",
        _case("frontal.nii.gz", lambda p: os.truncate(p, 999)),
        r"frontal\.nii\.gz: not a readable NIfTI file .*; copy or export it again",
    ),
    BadExam(
        "a view without pixels",
        _case("frontal.nii.gz", lambda p: _gzipped_nifti(p, 0, np.uint8)),
        r"frontal\.nii\.gz: .* got shape \[0, 0\]: give two files",
    ),
    BadExam(
        "a view that is a bomb",
        _case("frontal.nii.gz", lambda p: _gzipped_nifti(p, 9000, np.uint8)),
        r"frontal\.nii\.gz: .* (at most|more than) .*; (give|resample)",
    ),
]
_PATHS = [
    BadExam("an empty folder", lambda f: None, r"exam: holds no radiographs and no folder or zip with some; give"),
    BadExam(
        "an empty file", _after(write_films, _replaced("frontal.dcm", Path.touch)), r"frontal\.dcm: an empty file; copy"
    ),
    BadExam(
        "a folder called .dcm", _after(write_films, _replaced("frontal.dcm", Path.mkdir)), r"exam: .* got 1 .*; leave"
    ),
    BadExam(
        "a folder as a view",
        _after(write_films, _replaced("frontal.dcm", Path.mkdir), _by_view("frontal.dcm", "lateral.dcm")),
        r"frontal\.dcm: not a regular file but a folder, .*; give a file",
    ),
    BadExam(
        "a pipe among films", _after(write_films, _replaced("frontal.dcm", os.mkfifo)), r"exam: .* got 1 .*; leave"
    ),
    BadExam(
        "a pipe as a view",
        _after(write_films, _replaced("frontal.dcm", os.mkfifo), _by_view("frontal.dcm", "lateral.dcm")),
        r"frontal\.dcm: not a regular file but .* pipe or device; give a file",
    ),
    BadExam(
        "a pipe",
        _after(_replaced("pipe", os.mkfifo), lambda f: str(f / "pipe")),
        r"pipe: not a regular file but a folder, pipe or device; give a file",
    ),
    BadExam(
        "a pipe for a list",
        _after(_replaced("x.json", os.mkfifo), lambda f: str(f / "x.json")),
        r"x\.json: not a regular file but a folder, pipe or device; give a file",
    ),
    BadExam("a device", lambda f: "/dev/zero", r"zero: not a regular file but a folder, pipe or device; give a file"),
    BadExam(
        "a folder called .json",
        _after(_replaced("x.json", Path.mkdir), lambda f: str(f / "x.json")),
        r"x\.json: holds no radiographs and no folder or zip with some; give",
    ),
    BadExam(
        "text called .dcm", _after(write_films, _replaced("frontal.dcm", lambda p: p.write_text("X"))), r"m: starts .*;"
    ),
    BadExam(
        "text called .png",
        _after(write_pictures, _replaced("frontal.png", lambda p: p.write_text("X"))),
        r"g: starts .*;",
    ),
    BadExam(
        "text as a view",
        _after(
            write_pictures,
            _replaced("frontal.png", lambda p: p.write_text("X")),
            _by_view("frontal.png", "lateral.png"),
        ),
        r"frontal\.png: starts with b'X', .*; export it as one of them",
    ),
    BadExam(
        "a dangling link among films",
        _after(write_films, _replaced("frontal.dcm", lambda p: p.symlink_to("nowhere"))),
        r"frontal\.dcm: a link to nowhere, which does not exist; repair",
    ),
    BadExam(
        "a dangling link as a view",
        _after(
            write_films,
            _replaced("frontal.dcm", lambda p: p.symlink_to("nowhere")),
            _by_view("frontal.dcm", "lateral.dcm"),
        ),
        r"frontal\.dcm: a link to nowhere, which does not exist; repair",
    ),
    BadExam(
        "a link to itself as a view",
        _after(
            write_films,
            _replaced("frontal.dcm", lambda p: p.symlink_to("frontal.dcm")),
            _by_view("frontal.dcm", "lateral.dcm"),
        ),
        r"frontal\.dcm: a link to frontal\.dcm, which does not exist; repair",
    ),
    BadExam(
        "a folder in itself", _replaced("loop", lambda p: p.symlink_to(".")), r"loop: an exam is .* got 0; leave the tw"
    ),
    BadExam(
        "a name with a line break",
        _after(write_films, _line_break),
        r"lateral.*none\.dcm: starts with b'X', .*; export it as one of them",
    ),
    BadExam(
        "an absent exam", _list('["absent"]'), r"absent: cannot be read \(No such file or directory\); check the path"
    ),
    BadExam("a list of numbers", _list("[1, 2]"), r"exams\.json: an exam is a path, .*; got 1"),
    BadExam(
        "a list of a long list", _list(json.dumps([["x" * 10**5]])), r"exams\.json: an exam is a path, .*; got \['xx"
    ),
    BadExam("a list of nothing", _list("[]"), r"exams\.json: expected a list of exams, got list; see"),
    BadExam("a list nested without end", _list("[" * 10**5), r"exams\.json: not JSON \(.*\)"),
    BadExam("an absent input", lambda f: str(f / "absent"), r"absent: no such folder or file; --input is an exam"),
    BadExam("a path too long", lambda f: str(f / ("x" * 5000)), r"exam/xxx.*; "),
    BadExam("a path with a zero byte", lambda f: str(f) + "\0", r"exam.*; "),
    BadExam("a number", lambda f: 2024, r"--input: an exam is a path, two paths, .*; got 2024"),
    BadExam(
        "half a pair", lambda f: {"lateral": "x"}, r"--input: an exam is .* with frontal and lateral; got \{'lateral'"
    ),
    BadExam(
        "no file", lambda f: {"frontal": None, "lateral": "x"}, r"--input: an exam is a path, .*; got \{'frontal': No"
    ),
    BadExam(
        "three files", lambda f: ["a", "b", "c"], r"--input: an exam is a path, two paths, .*; got \['a', 'b', 'c'\]"
    ),
]
_FRONTAL, _ONE_OR_BOTH = ViewChoice(("frontal",), one_view=True), ViewChoice(one_view=True)
_ONE_VIEW = [
    *(
        BadExam(
            f"one film of {kind}, but both views wanted", make, message + ".*; this network .* --views", _ONE_OR_BOTH
        )
        for kind, make, message in [
            ("a folder", _after(write_films, lambda f: (f / "lateral.dcm").unlink()), r"exam: .* got 1 \(.*l\.dcm\);"),
            ("a list", _after(write_films, lambda f: [str(f / "frontal.dcm")]), r"--input: an exam is .*; got \['"),
            ("a mapping", lambda f: {"frontal": "x"}, r"--input: an exam is .*; got \{'frontal': 'x'\}"),
            ("a case", _case("lateral.nii.gz", os.unlink), r"lateral\.nii\.gz: the lateral view is missing"),
        ]
    ),
    *(
        BadExam(f"one view wanted, {kind}", make, message, _FRONTAL)
        for kind, make, message in [
            (
                "the other one given",
                _after(write_films, lambda f: (f / "frontal.dcm").unlink()),
                r"lateral\.dcm: a lateral view, but --views asks for the frontal one; .* choose --views lateral",
            ),
            (
                "the other one named",
                lambda f: {"lateral": "x"},
                r"--input: an exam is a path, a list of one or two, or an object with frontal; got \{'lateral'",
            ),
            (
                "none given",
                _zip(lambda d: packed([])),
                r"exam\.zip: an exam is a frontal .*, got 0; leave it alone, or",
            ),
            (
                "three given",
                _after(write_films, _third_film),
                r"exam: .* got 3 \(.*\); leave it alone, or name it by --f",
            ),
            (
                "two of it given",
                _one_view_twice("frontal"),
                r"both are frontal views; an exam is one frontal and one lateral view",
            ),
            (
                "no file tells its view",
                _after(_both(**NOT_STATED), _renamed),
                r"\.dcm: neither the file nor its name tells .*; give the file by --frontal",
            ),
            (
                "told by a file of the other one",
                _after(write_films, lambda f: {"frontal": str(f / "lateral.dcm")}),
                r"lateral\.dcm: given as the frontal view, but .* lateral one; exchange",
            ),
            (
                "two patients",
                _headers(frontal={"PatientID": "demo"}, lateral={"PatientID": "other"}),
                r"two patients, by PatientID; give two views of one patient",
            ),
            (
                "not in the case",
                _case("frontal.nii.gz", os.unlink),
                r"the frontal view is missing; a case needs frontal",
            ),
            ("untold geometry", _frontal(ImagerPixelSpacing=None), r"frontal\.dcm: .*\. Give --pixel_spacing_mm \("),
        ]
    ),
]
BAD_EXAMS = [*_DICOM, *_PAIRS, *_GEOMETRY, *_PICTURES, *_NIFTI, *_ZIPS, *_CASES, *_PATHS, *_ONE_VIEW]
