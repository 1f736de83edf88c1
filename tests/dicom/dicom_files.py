"""DICOM radiographs made in memory, valid unless a test changes an attribute."""

from pathlib import Path
from tempfile import TemporaryDirectory

import gdcm
import numpy as np
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
    generate_uid,
)

DISPLAY = {"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1}
KINDS = {
    "DX": {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImagerPixelSpacing": [0.15, 0.14],
        **DISPLAY,
    },
    "RAW": {
        "SOPClassUID": DigitalXRayImageStorageForProcessing,
        "Modality": "DX",
        "PresentationIntentType": "FOR PROCESSING",
        "ImagerPixelSpacing": [0.15, 0.14],
        "PixelIntensityRelationship": "LIN",
        "PixelIntensityRelationshipSign": 1,
    },
    "CR": {"SOPClassUID": ComputedRadiographyImageStorage, "Modality": "CR"},
    "XA": {
        "SOPClassUID": XRayAngiographicImageStorage,
        "Modality": "XA",
        "PixelIntensityRelationship": "LIN",
        "PositionerPrimaryAngle": 0,
        "PositionerSecondaryAngle": 0,
    },
    "RF": {
        "SOPClassUID": XRayRadiofluoroscopicImageStorage,
        "Modality": "RF",
        "PixelIntensityRelationship": "LIN",
    },
}


def film(rows: int = 96, columns: int = 80, bits: int = 12, seed: int = 0) -> np.ndarray:
    """Unsigned pixels ``[rows, columns]`` of all levels, bright in the middle, with noise: no two alike."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    noise = np.random.default_rng(seed).uniform(0, 0.1, (rows, columns))
    levels = 0.9 * np.exp(-2 * (x**2 + y**2)) + noise
    return np.round(levels * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)


def radiograph(kind: str = "DX", pixels: np.ndarray | None = None, bits: int = 12, **changes) -> FileDataset:
    """A radiograph of one of :data:`KINDS`.

    Args:
        kind: ``DX`` (for presentation), ``RAW`` (DX for processing), ``CR``, ``XA`` or ``RF``.
        pixels: stored values ``[rows, columns]``, or ``[frames, rows, columns]``, of 8 or 16 bits.
        bits: stored.
        changes: attributes by keyword, ``TransferSyntaxUID`` among them; None leaves one out.
    """
    pixels = film(bits=bits) if pixels is None else pixels
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    attributes = {
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "PatientSex": "F",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2),
        **({"NumberOfFrames": len(pixels)} if pixels.ndim == 3 else {}),
        **KINDS[kind],
        **changes,
    }
    for keyword, value in attributes.items():
        if value is not None:
            setattr(meta if keyword == "TransferSyntaxUID" else dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    return dataset


def compressed(dataset: FileDataset, syntax: str) -> FileDataset:
    """The same radiograph in another transfer syntax, by GDCM's encoder."""
    with TemporaryDirectory() as folder:
        name = f"{folder}/x.dcm"
        dataset.save_as(name)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(name)
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(name)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return dcmread(name)


def write_radiograph(path: Path, kind: str = "DX", pixels: np.ndarray | None = None, **changes) -> Path:
    """:func:`radiograph` as a file."""
    radiograph(kind, pixels, **changes).save_as(path)
    return path
