"""When two headers are of two patients."""

import pytest
from pydicom.dataset import Dataset

from scripts.dicom.identity import IDENTITY, contradictions, naming


def contradict(keyword, first, second):
    headers = [Dataset(), Dataset()]
    for header, value in zip(headers, (first, second), strict=True):
        setattr(header, keyword, value)
    return contradictions(headers, [keyword]) == [keyword]


@pytest.mark.parametrize(
    ("keyword", "first", "second"),
    [
        ("PatientName", "Yamada^Tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("PatientName", "=山田^太郎", "Yamada^Tarou"),
        ("PatientName", "DOE^JANE^^", "Doe, Jane"),
        ("PatientName", "Müller", "Mu\u0308ller"),
        ("PatientName", "Ｄｏｅ", "Doe"),
        ("PatientName", "", "Doe"),
        ("PatientBirthDate", "1970.01.31", "19700131"),
        ("PatientID", "p1 ", "P1"),
        ("PatientSex", "O", "F"),
        ("PatientSex", "", "F"),
        ("PatientSex", "f", "F "),
        ("IssuerOfPatientID", "", "Hospital A"),
        ("IssuerOfPatientID", "HOSPITAL  A", "Hospital A"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_value_spelled_twice_is_no_contradiction(keyword, first, second):
    assert not contradict(keyword, first, second) and not contradict(keyword, second, first)


@pytest.mark.parametrize(
    ("keyword", "first", "second"),
    [
        ("PatientName", "Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^次郎"),
        ("PatientName", "Yamada^Tarou", "Yamada^Jirou=山田^太郎"),
        ("PatientID", "1.23", "12.3"),
        ("PatientBirthDate", "19700131", "19700113"),
        ("StudyInstanceUID", "1.2.34", "1.23.4"),
        ("PatientSex", "M", "F"),
        ("IssuerOfPatientID", "Hospital A", "Hospital B"),
    ],
)
def test_two_values_are_a_contradiction(keyword, first, second):
    assert contradict(keyword, first, second) and contradict(keyword, second, first)


def test_every_attribute_of_an_identity_is_compared():
    assert {"PatientID", "PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"} == {*IDENTITY}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, set()),
        ({"PatientID": "", "PatientName": None}, set()),
        ({"PatientID": " ", "PatientName": "^^=="}, set()),
        ({"PatientID": "1"}, {"PatientID"}),
        ({"PatientID": "1", "PatientName": "=山田^太郎"}, {"PatientID", "PatientName"}),
        ({"PatientSex": "F", "PatientBirthDate": "19700131"}, set()),
    ],
)
def test_a_header_names_its_patient_by_number_or_name(attributes, expected):
    header = Dataset()
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    assert naming(header) == expected
