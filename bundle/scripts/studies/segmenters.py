"""External segmentation networks with a common interface: from a CT volume to a class per voxel on the same grid."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import ScaleIntensityRange, Spacing, SpatialResample
from torch import Tensor, nn

from scripts.inference.weights import load_weights
from scripts.io.digest import sha256
from scripts.io.nifti import write_volume
from scripts.io.tensors import check_sums
from scripts.smoothing import smoothed
from scripts.studies.label_maps import Description, Ids, read_description, structures

SIDE_MULTIPLE = 32
"""Without a window, volumes are padded to a multiple of this many voxels, enough for five levels."""
CONFIG_FILES = ("inference.json", "inference.yaml", "inference.yml")
BUNDLE_PARTS = ("network_def", "preprocessing", "inferer")


@dataclass(frozen=True)
class Segmenter:
    """Segmenter of a CT: prepares the volume, applies the network, and resamples the classes to the volume's grid.

    Attributes:
        path: path of the segmenter, for messages.
        sha256: digest of its weights.
        description: meaning of its classes.
        prepare: ``prepare(hu, affine)`` returns the network's input ``[1, ...]``, with its own affine.
        network: the network, on ``device``.
        inferer: ``inferer(batch, network)`` returns logits ``[1, C, ...]`` of a batch ``[1, 1, ...]``.
        device: device of the computation.
        padding: class beyond the image's grid: ``border`` for the nearest voxel's, ``zeros`` for background.
    """

    path: Path
    sha256: str
    description: Description
    prepare: Callable[[np.ndarray, np.ndarray], MetaTensor]
    network: nn.Module
    inferer: Callable[[Tensor, nn.Module], Any]
    device: torch.device
    padding: str

    @property
    def record(self) -> dict[str, str]:
        """Return JSON-ready facts about the segmenter, for the summaries."""
        return {"segmenter": str(self.path), "segmenter_sha256": self.sha256}

    @torch.no_grad()
    def __call__(self, hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Return classes ``[U, V, W]`` int16 of a volume ``[U, V, W]`` in HU with RAS affine ``[4, 4]``."""
        image = self.prepare(hu, affine)
        logits = self._logits(image.as_tensor()[None].to(self.device))
        return _on_grid(logits.argmax(1), image.affine, hu.shape, affine, self.padding)

    def _logits(self, batch: Tensor) -> Tensor:
        """Return logits of a batch ``[1, 1, ...]``, one for every voxel and class of the label map."""
        try:
            logits = self.inferer(batch, self.network)
        except RuntimeError as error:
            raise ValueError(
                f"{self.path}: the network fails on an input of shape {tuple(batch.shape)} ({_gist(error)}); "
                "correct the label map's window, or the bundle's inferer"
            ) from error
        highest = max(max(ids) for ids in self.description.labels.values())
        shape = tuple(getattr(logits, "shape", ()))
        if shape[2:] != tuple(batch.shape[2:]) or shape[1] <= highest:
            raise ValueError(
                f"{self.path}: the network answers {tuple(batch.shape)} with {shape or type(logits).__name__}, which "
                f"is not one logit per voxel and class, up to class {highest} of the label map; correct the map or "
                "export the network so that it does"
            )
        return logits


def load_segmenter(path: str | Path | None, labels: str | Path | None, device: torch.device) -> Segmenter:
    """Load a segmenter from a TorchScript file or a MONAI bundle.

    A bundle's configuration is code: loading one runs whatever its author wrote.

    Args:
        path: the file or the bundle's folder.
        labels: the label map; by default the JSON file next to a TorchScript file, or the metadata of a bundle.
        device: device of the computation.

    Raises:
        ValueError: the segmenter is missing or unusable; the message says what to do.
    """
    if path is None:
        raise ValueError("segmenter: none given; add --segmenter with a TorchScript file or a MONAI bundle's folder")
    path = Path(path)
    if path.is_dir():
        return _bundle_segmenter(path, Description() if labels is None else read_description(labels), device)
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder; --segmenter takes a TorchScript file or a bundle's folder")
    return _script_segmenter(path, read_description(labels or path.with_suffix(".json")), device)


def _script_segmenter(path: Path, description: Description, device: torch.device) -> Segmenter:
    """Load a TorchScript network that maps volumes ``[1, 1, U, V, W]``, RAS+, HU scaled to [0, 1], to logits.

    Raises:
        ValueError: the file is damaged or not TorchScript, or the description is incomplete.
    """
    if not (description.labels and description.hu_range and description.spacing_mm):
        missing = [name for name in ("labels", "hu_range", "spacing_mm") if not getattr(description, name)]
        raise ValueError(f"{path}: its label map lacks {' and '.join(missing)}; a TorchScript file needs them")
    try:
        check_sums(path)
        network = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: damaged, or not a TorchScript file ({_gist(error)}); export the network with torch.jit.script or "
            "MONAI's ckpt_export"
        ) from error
    prepare = partial(_scaled, spacing_mm=description.spacing_mm, hu_range=description.hu_range)
    inferer = partial(_slide, window=description.window)
    # The network's grid may end up to half a voxel short of the volume's.
    return Segmenter(path, sha256(path), description, prepare, network, inferer, device, padding="border")


def _bundle_segmenter(folder: Path, description: Description, device: torch.device) -> Segmenter:
    """Load the segmentation network of a MONAI bundle, with the bundle's own preprocessing and inferer.

    Its postprocessing is not used: the class is the argmax over channels. The weights are ``models/model.pt``, or the
    file named by the configuration's ``checkpointloader``. If the description has no labels, the metadata's
    ``channel_def`` names the classes.

    Raises:
        ValueError: the folder is not a bundle, cannot be loaded, or does not name its classes.
    """
    found = [path for path in (folder / "configs" / name for name in CONFIG_FILES) if path.is_file()]
    if not found:
        raise ValueError(f"{folder}: not a MONAI bundle, which needs one of configs/{', '.join(CONFIG_FILES)}")
    config, metadata_file = found[0], folder / "configs" / "metadata.json"
    metadata = _metadata(metadata_file)
    labels = description.labels or _channel_names(metadata_file, metadata)
    description = Description(labels, description.dataset_labels)
    try:
        parser = ConfigParser(ConfigParser.load_config_file(config) | {"_meta_": metadata})
        missing = [name for name in BUNDLE_PARTS if name not in parser]
        if missing:
            raise ValueError(f"a segmentation bundle's inference needs {', '.join(BUNDLE_PARTS)}; missing: {missing}")
        parser["bundle_root"], parser["device"] = str(folder), f"$torch.device({str(device)!r})"
        weights = folder / "models" / "model.pt"
        if parser.get("checkpointloader#load_path"):
            weights = Path(parser.get_parsed_content("checkpointloader#load_path"))
        network, preprocessing, inferer = (parser.get_parsed_content(name) for name in BUNDLE_PARTS)
    except (RuntimeError, ImportError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{config}: cannot be used to segment ({_gist(error)}); export its network as TorchScript and "
            "give that file with a label map"
        ) from error
    if not weights.is_file():
        raise ValueError(f"{weights}: no weights; download the bundle with its model")
    network = load_weights(network.to(device), weights)
    prepare = partial(_preprocessed, folder=folder, preprocessing=preprocessing)
    # Voxels cropped away by the preprocessing are background.
    return Segmenter(folder, sha256(weights), description, prepare, network, inferer, device, padding="zeros")


def _scaled(hu: np.ndarray, affine: np.ndarray, spacing_mm: float, hu_range: tuple[float, float]) -> MetaTensor:
    """Resample to a volume ``[1, U, V, W]`` with isotropic voxels and HU scaled to [0, 1]."""
    smooth_hu = smoothed(hu.astype(np.float32), spacing_mm / nib.affines.voxel_sizes(affine), mode="nearest")
    image = MetaTensor(torch.from_numpy(smooth_hu)[None], affine=torch.as_tensor(affine))
    spaced = Spacing([spacing_mm] * 3, mode="bilinear", padding_mode="border")(image)
    return cast(MetaTensor, ScaleIntensityRange(hu_range[0], hu_range[1], 0.0, 1.0, clip=True)(spaced))


def _slide(batch: Tensor, network: nn.Module, window: tuple[int, int, int] | None) -> Any:
    """Compute logits in half-overlapping windows or, without a window, on the whole padded volume."""
    whole = tuple(math.ceil(n / SIDE_MULTIPLE) * SIDE_MULTIPLE for n in batch.shape[2:])
    return SlidingWindowInferer(window or whole, overlap=0.5, mode="gaussian")(batch, network)


def _preprocessed(hu: np.ndarray, affine: np.ndarray, folder: Path, preprocessing: Callable[..., Any]) -> MetaTensor:
    """Apply the preprocessing of the bundle in ``folder``, which reads from a file, to a CT."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "image.nii.gz"
        write_volume(path, hu.astype(np.float32), affine)
        try:
            return preprocessing({"image": str(path)})["image"]
        except (RuntimeError, LookupError) as error:
            raise ValueError(
                f"{folder}: its preprocessing fails on a CT under the key 'image' ({_gist(error)}); export its "
                "network as TorchScript and give that file with a label map"
            ) from error


def _on_grid(
    classes: Tensor, affine: Tensor, shape: tuple[int, ...], to_affine: np.ndarray, padding: str
) -> np.ndarray:
    """Resample classes ``[1, ...]`` by nearest neighbours to the grid ``[U, V, W]`` of ``to_affine``, int16."""
    image = MetaTensor(classes.cpu().float(), affine=affine)
    resample = SpatialResample(mode="nearest", padding_mode=padding)
    return resample(image, torch.as_tensor(to_affine), shape)[0].numpy().astype(np.int16)


def _metadata(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: unreadable ({error}); a bundle has one, copy the bundle again") from error


def _channel_names(path: Path, metadata: Mapping[str, Any]) -> dict[str, Ids]:
    try:
        return structures(metadata["network_data_format"]["outputs"]["pred"]["channel_def"])
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path}: network_data_format has no names for the classes in outputs, pred, channel_def; give them with "
            "--labels"
        ) from error


def _gist(error: BaseException) -> str:
    """Return the innermost cause of an error in one line; TorchScript puts its message after a traceback."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.rpartition("RuntimeError: ")[2].splitlines()[0]
