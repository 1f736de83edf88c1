import os
import sys

import numpy as np
import pytest
from pydicom.uid import JPEGLosslessSV1
from tests.dicom.dicom_files import compressed, film, radiograph

from scripts.dicom import codec


def file_of(dataset, folder):
    dataset.save_as(folder / "x.dcm")
    return (folder / "x.dcm").read_bytes()


def test_a_compressed_frame_comes_back_from_the_other_process(tmp_path):
    data = file_of(compressed(radiograph(), JPEGLosslessSV1), tmp_path)
    np.testing.assert_array_equal(codec.decode(data, 0), film())


def test_what_the_decoder_says_is_one_line(tmp_path):
    dataset = compressed(radiograph(), JPEGLosslessSV1)
    dataset.PixelData = dataset.PixelData.replace(b"\xff\xd8\xff", b"\xff\xd9\xff")
    with pytest.raises(ValueError, match=r"^\w+: .+") as refusal:
        codec.decode(file_of(dataset, tmp_path), 0)
    assert "\n" not in str(refusal.value)


@pytest.mark.skipif(os.name != "posix", reason="a shell stands in for the decoder")
@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("kill -SEGV $$", "the decoder crashed with signal 11"), ("exec sleep 60", "decoding takes more than 0.5 s")],
)
def test_a_decoder_that_crashes_or_hangs_is_an_error_of_the_file(tmp_path, monkeypatch, behaviour, message):
    (tmp_path / "python").write_text(f"#!/bin/sh\n{behaviour}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(codec, "MAX_SECONDS", 0.5)
    with pytest.raises(ValueError, match=message):
        codec.decode(b"", 0)
