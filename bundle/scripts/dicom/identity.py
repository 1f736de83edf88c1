"""What the DICOM files written here have in common: patient and study, unique identifiers, and how they are saved.

Unique identifiers are functions of what they identify. The same result written again has the same ones, so that an
archive that holds it already does not show it twice; any difference in inputs, settings, weights or pixels gives new
ones, for one identifier must never stand for two images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from unicodedata import normalize

from pydicom import dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

NOTICE = "NOT FOR DIAGNOSTIC USE"
IDENTITY = ("PatientID", "PatientName", "PatientBirthDate")
"""What two images of one patient cannot differ in where both state it."""
_PATIENT = """
PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientIdentityRemoved DeidentificationMethod
""".split()  # noqa: SIM905
_STUDY = """
StudyInstanceUID StudyID StudyDate StudyTime StudyDescription AccessionNumber ReferringPhysicianName PatientAge
PatientSize PatientWeight TimezoneOffsetFromUTC
""".split()  # noqa: SIM905
_REQUIRED = """
PatientName PatientID PatientBirthDate PatientSex StudyID StudyDate StudyTime AccessionNumber ReferringPhysicianName
""".split()  # noqa: SIM905
"""Attributes of type 2: there, if only without a value."""


def uid(*parts: str) -> UID:
    """A unique identifier; equal parts give equal ones."""
    return generate_uid(entropy_srcs=["\0".join(parts)])


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """A sequence whose one item is a coded concept."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def plain(text: str, length: int) -> str:
    """``text`` in ASCII, on one line, cut to ``length``."""
    return re.sub(r"[\\\s]+", " ", text).encode("ascii", "replace").decode()[:length].strip()


def check_one_patient(headers: Iterable[Dataset]) -> None:
    """Refuse headers of two patients.

    Raises:
        ValueError: names the attributes they differ in, and no values: messages are no place for identities.
    """
    if differing := contradictions(headers, IDENTITY):
        raise ValueError(f"source images: of two patients, by {', '.join(differing)}; give two views of one patient")


def contradictions(headers: Iterable[Dataset], keywords: Iterable[str]) -> list[str]:
    """The attributes in which headers state different values.

    Letter case, separators, and the width and composition of characters do not count. A name is stated in up to three
    groups, alphabetic, ideographic and phonetic, of which only those are compared that both headers have.
    """
    headers = list(headers)
    return [keyword for keyword in keywords if _differ([_groups(keyword, h.get(keyword)) for h in headers])]


def _differ(stated: list[list[str]]) -> bool:
    """Whether texts differ that stand at one place."""
    return any(len({*in_place} - {""}) > 1 for in_place in zip_longest(*stated, fillvalue=""))


def _groups(keyword: str, value: object) -> list[str]:
    """The bare texts of a value: the groups of a name, the digits of a date, or all of anything else."""
    text, kind = str(value or ""), dictionary_VR(keyword)
    if kind == "DA":
        return [re.sub(r"\D", "", text)]
    groups = text.split("=") if kind == "PN" else [text]
    return [re.sub(r"[\s^,]+", " ", normalize("NFKC", group)).strip().casefold() for group in groups]


def identity(headers: Iterable[Dataset], exam: str, created: datetime) -> Dataset:
    """Patient and study of a new image, and when it was made.

    They are those of the source images; of two studies, the first. Where no source has any header, the patient is
    plainly anonymous, with an ID made from ``exam``. A study that no source states is made from ``exam`` and the day:
    what is made of one exam on one day is in one study, whose attributes are always the same. Text keeps the sources'
    character set, or is written in UTF-8 if they have two.

    Args:
        headers: of the source images; empty for a file that is not DICOM.
        exam: what tells this exam from all others.
        created: with time zone; written in the study's.

    Raises:
        ValueError: the headers are of two patients.
    """
    headers = [header for header in headers if header]
    check_one_patient(headers)
    studied = next((header for header in headers if header.get("StudyInstanceUID")), Dataset())
    result = Dataset()
    _set_character_set(result, headers)
    for keyword in _REQUIRED:
        setattr(result, keyword, None)
    for keywords, sources in ((_PATIENT, headers), (_STUDY, [studied])):
        for keyword in keywords:
            stated = next((source[keyword] for source in sources if source.get(keyword)), None)
            if stated is not None:
                result[keyword] = stated
    if result.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in result:
        result.DeidentificationMethod = "Not stated by the source images"
    if not headers:
        result.PatientName, result.PatientID = (
            "ANONYMOUS^PATIENT",
            f"ANON-{hashlib.sha256(exam.encode()).hexdigest()[:16]}",
        )
        result.PatientIdentityRemoved, result.DeidentificationMethod = "YES", "The source images state no identity"
    _set_times(result, created, ("Content", "InstanceCreation", "Series"))
    if not studied:
        begin_study(result, exam, result.ContentDate)
    return result


def begin_study(dataset: Dataset, exam: str, day: str) -> None:
    """Set the attributes of the one study that is made of an exam on a day, ``YYYYMMDD``."""
    dataset.StudyInstanceUID, dataset.StudyID = uid("study", exam, day), "1"
    dataset.StudyDate, dataset.StudyTime = day, "000000"


def _set_character_set(result: Dataset, headers: list[Dataset]) -> None:
    stated = [header["SpecificCharacterSet"] for header in headers if "SpecificCharacterSet" in header]
    if any(element.value != stated[0].value for element in stated):
        result.SpecificCharacterSet = "ISO_IR 192"
    elif stated:
        result["SpecificCharacterSet"] = stated[0]


def _set_times(result: Dataset, created: datetime, events: Iterable[str]) -> None:
    try:
        local = created.astimezone(datetime.strptime(result.TimezoneOffsetFromUTC, "%z").tzinfo)
    except (AttributeError, ValueError):  # not stated, or not in the standard's form
        local = created.astimezone()
    for event in events:
        setattr(result, f"{event}Date", local.strftime("%Y%m%d"))
        setattr(result, f"{event}Time", local.strftime("%H%M%S"))


def save(path: Path, dataset: Dataset) -> None:
    """Write one file, uncompressed."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, dataset, enforce_file_format=True)
