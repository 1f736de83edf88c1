"""Laws of devices: each is dense, is labelled, and lies in the body or on it, whatever the patient."""

import dataclasses

import pytest
import torch

from scripts.phantom.canvas import AIR_HU, Canvas, Label
from scripts.phantom.draw import Draw
from scripts.phantom.implants import paint_devices
from scripts.phantom.patient import Device, Patient
from scripts.phantom.trunk import Fields

SHAPE, SPACING_MM = (76, 60, 150), 5.0
ON_THE_SKIN_MM = 8.0


def carried(seed: int, *devices: Device) -> tuple[Canvas, Patient]:
    """Devices alone, without the patient who carries them."""
    patient = dataclasses.replace(Patient.drawn(Draw(seed), -30.0), devices=frozenset(devices))
    canvas = Canvas.blank(SHAPE, SPACING_MM, patient.scale, patient.isocentre)
    paint_devices(canvas, patient, Draw(seed))
    return canvas, patient


def test_nobody_carries_a_device_that_was_not_drawn():
    canvas, _ = carried(0)
    assert (canvas.hu == AIR_HU).all() and (canvas.labels == Label.AIR).all()


@pytest.mark.parametrize("device", Device)
@pytest.mark.parametrize("seed", (0, 1))
def test_device_is_denser_than_tissue(seed, device):
    patient = dataclasses.replace(Patient.drawn(Draw(seed), -30.0), devices=frozenset({device}))
    canvas = Canvas.blank((90, 72, 180), 4.5, patient.scale, patient.isocentre)
    canvas.hu.fill_(40.0)
    paint_devices(canvas, patient, Draw(seed))
    # Steel of 0.8 mm and plastic fill a part of a voxel only.
    assert canvas.hu.max() > 250
    assert set(canvas.labels.unique().tolist()) <= {Label.AIR, Label.DEVICE}


@pytest.mark.parametrize("device", Device)
def test_device_lies_in_the_patient_or_on_the_skin(device):
    for seed in range(3):
        canvas, patient = carried(seed, device)
        painted = canvas.hu > AIR_HU + 100
        assert painted.any()
        assert Fields.of(canvas, patient, Draw(seed)).body[painted].max() < ON_THE_SKIN_MM


def test_prosthesis_replaces_one_hip():
    canvas, _ = carried(3, Device.HIP_PROSTHESIS)
    x = canvas.x.expand(canvas.hu.shape)[canvas.labels == Label.DEVICE]
    assert len(x) > 100 and (x.min() > 0 or x.max() < 0) and x.abs().mean() > 80


def test_metal_of_a_prosthesis_saturates_the_scanner():
    canvas, _ = carried(3, Device.HIP_PROSTHESIS)
    assert torch.quantile(canvas.hu[canvas.labels == Label.DEVICE], 0.9) > 2900
