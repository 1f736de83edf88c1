"""Intensity scales and their inverses: HU, linear attenuation, and the networks' ranges.

Line integrals are dimensionless. A radiograph is scaled by one fixed constant, never per image: a per-image
normalisation would destroy attenuation.
"""

from __future__ import annotations

from torch import Tensor

AIR_HU = -1000.0
"""HU of air, used wherever a volume has no data."""
AIR_BELOW_HU = -900.0
"""Voxels of a reconstruction below this are taken to be air, and to be right."""
TYPICAL_ERROR_HU = 100.0
"""Standard deviation of all other voxels where no error is predicted."""
TRUSTED_MISFIT, EXPLAINED_MISFIT = 0.12, 0.02
"""Largest misfits (relative L2 over both views) of a volume to radiographs that are trusted, before and after it is
changed to meet them. First predictions miss the simulated radiographs of the training and validation patients by 0.02
to 0.10, and radiographs of 1.3 times the values by 0.13 and more. Of the former, the change leaves 0.003 to 0.017; of
radiographs that are shifted by 5 mm or processed for display, 0.03 and more."""
NETWORK_HU_RANGE = (-1024.0, 1500.0)
"""Clipping range of the CT values a network sees (DiffuX2CT, section 4.1)."""
MU_WATER_PER_MM = 0.02059
"""Linear attenuation of water in 1/mm at 60 keV (NIST XCOM: 0.2059 cm^2/g at 1 g/cm^3)."""
HU_PER_UNIT = (NETWORK_HU_RANGE[1] - NETWORK_HU_RANGE[0]) / 2
"""HU per unit of the networks' range."""
MU_PER_HU = MU_WATER_PER_MM / 1000
"""1/mm per HU."""
RADIOGRAPH_SCALE = 0.25
"""Network units per unit of line integral: a thick chest (about 8) lands near 2."""


def hu_to_network(hu: Tensor) -> Tensor:
    """Clip HU to ``NETWORK_HU_RANGE`` and map them to [-1, 1]; any shape."""
    low, high = NETWORK_HU_RANGE
    return (hu.clamp(low, high) - low) * (2.0 / (high - low)) - 1.0


def network_to_hu(x: Tensor) -> Tensor:
    """Invert :func:`hu_to_network` on the clipped range; any shape."""
    low, high = NETWORK_HU_RANGE
    return (x + 1.0) * ((high - low) / 2.0) + low


def hu_to_mu(hu: Tensor) -> Tensor:
    """Return linear attenuation in 1/mm: mu_water * (1 + HU / 1000), never negative; any shape."""
    return (MU_WATER_PER_MM * (1.0 + hu / 1000.0)).clamp(min=0.0)


def mu_to_hu(mu: Tensor) -> Tensor:
    """Invert :func:`hu_to_mu` where HU >= -1000; any shape."""
    return (mu / MU_WATER_PER_MM - 1.0) * 1000.0


def radiograph_to_network(line_integral: Tensor) -> Tensor:
    """Scale line integrals by the fixed ``RADIOGRAPH_SCALE``; any shape."""
    return line_integral * RADIOGRAPH_SCALE


def network_to_radiograph(image: Tensor) -> Tensor:
    """Invert :func:`radiograph_to_network`; any shape."""
    return image / RADIOGRAPH_SCALE
