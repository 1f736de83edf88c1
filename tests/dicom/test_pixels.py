"""Which bits are the image: the same for slices and radiographs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless
from tests.refusal import refused

from scripts.dicom import pixels
from scripts.dicom.pixels import PixelFormat, check_decodable, rescaled, stored_pixels


def header(**attributes):
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@st.composite
def formats(draw, allocated=(8, 16, 32)):
    bits = draw(st.sampled_from(allocated))
    stored = draw(st.integers(8, bits))
    return PixelFormat(1, 4, 1, bits, stored, draw(st.integers(stored - 1, bits - 1)), draw(st.booleans()))


@given(form=formats(), data=st.data(), fill=st.sampled_from(["zero", "sign"]))
def test_values_come_back_wherever_their_bits_lie_and_whatever_fills_the_rest(form, data, fill):
    low, high = form.extremes.tolist()
    values = np.array([data.draw(st.lists(st.integers(low, high), min_size=4, max_size=4))])
    bits = values if fill == "sign" else values & ((1 << form.bits_stored) - 1)
    raw = (bits << form.low_bit).astype(form.dtype)
    found = stored_pixels("x.dcm", Dataset(), form, raw)
    np.testing.assert_array_equal(found.values, values)
    assert found.values.dtype == form.dtype and not found.is_padding.any()


@given(value=st.integers(-(2**15), 2**16 - 1), is_signed=st.booleans())
def test_padding_is_found_however_its_sign_is_written_and_wherever_it_lies(value, is_signed):
    form = PixelFormat(1, 3, 1, 16, 12, 11, is_signed)
    word = np.array(value & 0xFFFF, np.uint16).astype(form.dtype)
    raw = np.array([[5, word, 6]], form.dtype)
    found = stored_pixels("x.dcm", header(PixelPaddingValue=value), form, raw)
    assert found.is_padding[0, 1]
    assert form.extremes[0] <= found.values[0, 1] <= form.extremes[1]
    np.testing.assert_array_equal(found.values[0, ::2], [5, 6])


@pytest.mark.parametrize(("value", "limit"), [(-2000, -1500), (-1500, -2000), (63536, 64036)])
def test_a_range_of_padding_may_be_given_from_either_end(value, limit):
    raw = np.array([[-2000, -1700, -1500, -1499]], np.int16)
    found = stored_pixels(
        "x.dcm",
        header(PixelPaddingValue=value, PixelPaddingRangeLimit=limit),
        PixelFormat(1, 4, 1, 16, 16, 15, True),
        raw,
    )
    assert found.is_padding.tolist() == [[True, True, True, False]]


def test_a_signed_value_beyond_the_stored_bits_is_no_negative_one():
    form = PixelFormat(1, 2, 1, 16, 12, 11, True)
    with refused(ValueError, "x.dcm", "BitsStored 12", "HighBit 11"):
        stored_pixels("x.dcm", Dataset(), form, np.array([[-1000, 3071]], np.int16))


def test_a_missing_or_empty_rescale_changes_nothing_and_one_half_is_applied():
    values = np.array([1, 2])
    assert rescaled(values, header(RescaleSlope="", RescaleIntercept=None)).tolist() == [1, 2]
    assert rescaled(values, header(RescaleIntercept=-5)).tolist() == [-4, -3]
    assert rescaled(values, header(RescaleSlope=2)).tolist() == [2, 4]


@pytest.mark.parametrize("number", ["110", "111", "112"])
def test_a_syntax_that_pydicom_does_not_know_is_named(number):
    with refused(ValueError, "x.dcm", "JPEG XL", f"4.{number})", "uncompressed"):
        check_decodable("x.dcm", UID(f"1.2.840.10008.1.2.4.{number}"))


def test_a_syntax_without_a_decoder_here_names_those_that_would_do(monkeypatch):
    class Decoder:
        is_available = False
        missing_dependencies = ["pylibjpeg - requires pylibjpeg-openjpeg"]

    check_decodable("x.dcm", ExplicitVRLittleEndian)
    monkeypatch.setattr(pixels, "get_decoder", lambda syntax: Decoder)
    with refused(ValueError, "JPEG 2000", "decoder", "pylibjpeg"):
        check_decodable("x.dcm", JPEG2000Lossless)
