"""Common parts of all DICOM files written here: patient and study, unique identifiers, and saving.

Unique identifiers are functions of the content they identify. Writing the same result again gives the same ones, so
that an archive does not show it twice; any difference in inputs, settings, weights or pixels gives new ones, because an
identifier must never refer to two images.
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
NAMING = ("PatientID", "PatientName")
"""Attributes that tell who a patient is."""
IDENTITY = (*NAMING, "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
"""Attributes that must agree between two images of one patient if both state them."""
_OTHER_SEX = "o"
"""Value of PatientSex that is written for an unknown one as well."""
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
"""Attributes of type 2: required, but possibly without a value."""


def uid(*parts: str) -> UID:
    """Return a unique identifier that is a function of ``parts``."""
    return generate_uid(entropy_srcs=["\0".join(parts)])


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """Return a sequence with one item, a coded concept."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def plain(text: str, length: int) -> str:
    """Return ``text`` in ASCII, on one line, cut to ``length``."""
    return re.sub(r"[\\\s]+", " ", text).encode("ascii", "replace").decode()[:length].strip()


def check_one_patient(headers: Iterable[Dataset]) -> None:
    """Check that all headers belong to one patient.

    Raises:
        ValueError: attributes differ; the message names them without values, to keep identities out of logs.
    """
    if differing := contradictions(headers, IDENTITY):
        raise ValueError(f"source images: of two patients, by {', '.join(differing)}; give two views of one patient")


def contradictions(headers: Iterable[Dataset], keywords: Iterable[str]) -> list[str]:
    """Return the attributes in which headers state different values.

    Letter case, separators, and the width and composition of characters are ignored. A name has up to three groups,
    alphabetic, ideographic and phonetic; only groups that both headers have are compared. The sex O, other, is unknown.
    """
    headers = list(headers)
    return [keyword for keyword in keywords if _differ([_groups(keyword, h.get(keyword)) for h in headers])]


def naming(header: Dataset) -> set[str]:
    """Return which of :data:`NAMING` a header states."""
    return {keyword for keyword in NAMING if any(_groups(keyword, header.get(keyword)))}


def _differ(stated: list[list[str]]) -> bool:
    """Return whether texts at the same position differ."""
    return any(len({*in_place} - {""}) > 1 for in_place in zip_longest(*stated, fillvalue=""))


def _groups(keyword: str, value: object) -> list[str]:
    """Normalise a value to texts: the groups of a name, the digits of a date, or the whole of anything else."""
    text, kind = str(value or ""), dictionary_VR(keyword)
    if kind == "DA":
        return [re.sub(r"\D", "", text)]
    groups = text.split("=") if kind == "PN" else [text]
    plain_groups = [re.sub(r"[\s^,]+", " ", normalize("NFKC", group)).strip().casefold() for group in groups]
    return [] if keyword == "PatientSex" and plain_groups == [_OTHER_SEX] else plain_groups


def identity(headers: Iterable[Dataset], exam: str, created: datetime) -> Dataset:
    """Return patient, study and creation time of a new image.

    Patient and study are those of the source images; of two studies, the first. If no source has a header, the patient
    is anonymous, with an ID derived from ``exam``. If no source states a study, it is derived from ``exam`` and the
    day, so that all results of one exam on one day are in one study with the same attributes. Text keeps the sources'
    character set, or is written in UTF-8 if they have two.

    Args:
        headers: headers of the source images; empty for a file that is not DICOM.
        exam: text that identifies this exam.
        created: creation time with time zone; written in the study's time zone.

    Raises:
        ValueError: the headers belong to two patients.
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
    """Set the attributes of the study for all results of an exam on a day, ``YYYYMMDD``."""
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
