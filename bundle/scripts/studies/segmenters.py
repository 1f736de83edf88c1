"""Segmentation networks from elsewhere, by a common call: a CT volume in, a class per voxel out, on the same grid."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import ScaleIntensityRange, Spacing, SpatialResample
from scipy.ndimage import gaussian_filter
from torch import Tensor

from scripts.inference.weights import load_weights
from scripts.io.digest import sha256
from scripts.io.nifti import write_volume

Ids = tuple[int, ...]
SIDE_MULTIPLE = 32
"""A network without a window sees the volume filled up to a multiple of this many voxels: enough for five levels."""
CONFIG_FILES = ("inference.json", "inference.yaml", "inference.yml")
BUNDLE_PARTS = ("network_def", "preprocessing", "inferer")


class Segmenter(Protocol):
    """Finds structures in a CT.

    Attributes:
        description: what its classes mean.
        record: JSON-ready facts about it, for the summaries.
    """

    description: Description
    record: dict[str, Any]

    def __call__(self, hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Classes ``[U, V, W]`` int16 of a volume ``[U, V, W]`` in HU with its RAS affine ``[4, 4]``, on its grid."""


@dataclass(frozen=True)
class Description:
    """The label map of a segmenter, and the input that it expects.

    Attributes:
        labels: name of the structure to the classes of the segmenter that make it up.
        dataset_labels: name of the structure to the values of the data set's own label files that make it up.
        hu_range: HU that the network sees as 0 and as 1; what lies beyond is clipped. TorchScript only.
        spacing_mm: of the voxels that the network sees. TorchScript only.
        window: voxels along u, v, w of the network's input, if it cannot take a whole volume. TorchScript only.

    Raises:
        ValueError: a name or a value that cannot be meant.
    """

    labels: Mapping[str, Ids] = field(default_factory=dict)
    dataset_labels: Mapping[str, Ids] = field(default_factory=dict)
    hu_range: tuple[float, float] | None = None
    spacing_mm: float | None = None
    window: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        low_high, spacing_mm, window = self.hu_range, self.spacing_mm, self.window
        if low_high is not None and not (_are_numbers(low_high, 2) and low_high[0] < low_high[1]):
            raise ValueError(f"hu_range is [low, high] in HU, got {low_high!r}; write e.g. [-1000, 1000]")
        if spacing_mm is not None and not (_are_numbers([spacing_mm], 1) and 0 < spacing_mm < math.inf):
            raise ValueError(f"spacing_mm is a positive number of millimetres, got {spacing_mm!r}; write e.g. 1.5")
        if window is not None and not (_are_numbers(window, 3) and all(n >= 1 and n % 1 == 0 for n in window)):
            raise ValueError(f"window is three counts of voxels, got {window!r}; write e.g. [96, 96, 96]")
        unknown = sorted(set(self.dataset_labels) - set(self.labels)) if self.labels else []
        if unknown:
            raise ValueError(
                f"label map: dataset_labels names {unknown[0]!r}, which is no structure of the segmenter; choose from "
                f"{', '.join(self.labels)}"
            )


def read_description(path: str | Path) -> Description:
    """Read a label map: see ``docs/segmentation.md`` for its keys.

    Raises:
        ValueError: missing, not JSON, or with a key or value that is wrong; the message names the file and the remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no label map; a segmenter's classes are never guessed, write them into a JSON file")
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON label map ({error})") from error
    known = set(Description.__dataclass_fields__)
    if not isinstance(values, dict) or set(values) - known:
        got = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{path}: a label map is a JSON object with the keys {', '.join(sorted(known))}, got {got}")
    try:
        if "labels" in values:
            values["labels"] = structures(values["labels"])
        if "dataset_labels" in values:
            values["dataset_labels"] = _meanings(values["dataset_labels"])
        return Description(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def structures(labels: Any) -> dict[str, Ids]:
    """``{"1": "lung", "2": "lung", "3": "rib left"}`` as ``{"lung": (1, 2), "rib_left": (3,)}``; class 0 is left out.

    Raises:
        ValueError: no structure, or a class that is not a number.
    """
    found: dict[str, Ids] = {}
    if isinstance(labels, Mapping) and all(str(label).isdecimal() for label in labels):
        for label, name in labels.items():
            if int(label) > 0:
                found[_column(name)] = (*found.get(_column(name), ()), int(label))
    if not found:
        raise ValueError(f'labels maps the numbers of classes to names, got {labels!r}; write e.g. {{"1": "lung"}}')
    return found


def load_segmenter(path: str | Path | None, labels: str | Path | None, device: torch.device) -> Segmenter:
    """A segmenter of the user's: a TorchScript file or a MONAI bundle.

    A bundle's configuration is code: loading one runs whatever its author wrote.

    Args:
        path: the file or the bundle's folder.
        labels: its label map; by default the JSON file beside a TorchScript file, and for a bundle its metadata.
        device: where to compute.

    Raises:
        ValueError: nothing given, nothing there, or something that cannot be used; the message says what to do.
    """
    if path is None:
        raise ValueError("segmenter: none given; add --segmenter with a TorchScript file or a MONAI bundle's folder")
    path = Path(path)
    if path.is_dir():
        return BundleSegmenter(path, Description() if labels is None else read_description(labels), device)
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder; --segmenter is a TorchScript file or the folder of a bundle")
    return ScriptSegmenter(path, read_description(labels or path.with_suffix(".json")), device)


class ScriptSegmenter:
    """A TorchScript network: volumes ``[1, 1, U, V, W]``, RAS+, HU scaled to [0, 1], to logits ``[1, C, U, V, W]``.

    Args:
        path: the file.
        description: with ``labels``, ``hu_range`` and ``spacing_mm``.
        device: where to compute.

    Raises:
        ValueError: not TorchScript, or an incomplete description.
    """

    def __init__(self, path: Path, description: Description, device: torch.device) -> None:
        missing = [name for name in ("labels", "hu_range", "spacing_mm") if not getattr(description, name)]
        if missing:
            raise ValueError(f"{path}: its label map lacks {' and '.join(missing)}; a TorchScript file needs them")
        try:
            self.network = torch.jit.load(path, map_location=device).eval()
        except RuntimeError as error:
            raise ValueError(
                f"{path}: not a TorchScript file ({_gist(error)}); export the network with torch.jit.script or "
                "MONAI's ckpt_export"
            ) from error
        self.path, self.description, self.device = path, description, device
        self.record = {"segmenter": str(path), "segmenter_sha256": sha256(path)}

    @torch.no_grad()
    def __call__(self, hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """The class of every voxel; see :class:`Segmenter`."""
        image = _with_spacing(hu, affine, self.description.spacing_mm)
        image = ScaleIntensityRange(*self.description.hu_range, 0.0, 1.0, clip=True)(image)
        whole = tuple(math.ceil(n / SIDE_MULTIPLE) * SIDE_MULTIPLE for n in image.shape[1:])
        inferer = SlidingWindowInferer(self.description.window or whole, overlap=0.5, mode="gaussian")
        logits = _apply(self.path, inferer, image, self)
        # The network's grid may end up to half a voxel before the volume's.
        return _on_grid(logits.argmax(1), image.affine, hu.shape, affine, "border")


class BundleSegmenter:
    """The segmentation network of a MONAI bundle, with the bundle's own preprocessing and inferer.

    Its postprocessing is not used: of the network's channels the largest wins.

    Args:
        folder: with ``configs/inference.json`` (or YAML), ``configs/metadata.json`` and ``models/model.pt``, or the
            weights file that the configuration's ``checkpointloader`` names.
        description: with ``labels`` where the metadata's ``channel_def`` shall not count, and ``dataset_labels``.
        device: where to compute.

    Raises:
        ValueError: no bundle, one that cannot be loaded, or one without names for its classes.
    """

    def __init__(self, folder: Path, description: Description, device: torch.device) -> None:
        found = [path for path in (folder / "configs" / name for name in CONFIG_FILES) if path.is_file()]
        if not found:
            raise ValueError(f"{folder}: no MONAI bundle, which has one of configs/{', '.join(CONFIG_FILES)}")
        config = found[0]
        metadata = _metadata(folder / "configs" / "metadata.json")
        self.description = Description(
            description.labels or _channel_names(folder / "configs" / "metadata.json", metadata),
            description.dataset_labels,
        )
        try:
            parser = ConfigParser(ConfigParser.load_config_file(config) | {"_meta_": metadata})
            missing = [name for name in BUNDLE_PARTS if name not in parser.config]
            if missing:
                raise ValueError(f"a segmentation bundle's inference has {', '.join(BUNDLE_PARTS)}; missing: {missing}")
            parser["bundle_root"], parser["device"] = str(folder), f"$torch.device({str(device)!r})"
            weights = folder / "models" / "model.pt"
            if parser.get("checkpointloader#load_path"):
                weights = Path(parser.get_parsed_content("checkpointloader#load_path"))
            network, self.preprocessing, self.inferer = (parser.get_parsed_content(name) for name in BUNDLE_PARTS)
        except (RuntimeError, ImportError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{config}: cannot be used to segment ({_gist(error)}); export its network as TorchScript and "
                "give that file with a label map"
            ) from error
        if not weights.is_file():
            raise ValueError(f"{weights}: no weights; download the bundle with its model")
        self.network = load_weights(network.to(device), weights)
        self.path, self.device = folder, device
        self.record = {"segmenter": str(folder), "segmenter_sha256": sha256(weights)}

    @torch.no_grad()
    def __call__(self, hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """The class of every voxel; see :class:`Segmenter`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.nii.gz"
            write_volume(path, hu.astype(np.float32), affine)
            try:
                image = self.preprocessing({"image": str(path)})["image"]
            except (RuntimeError, LookupError) as error:
                raise ValueError(
                    f"{self.path}: its preprocessing fails on a CT under the key 'image' ({_gist(error)}); export its "
                    "network as TorchScript and give that file with a label map"
                ) from error
        logits = _apply(self.path, self.inferer, image, self)
        # What the preprocessing has cropped away is background.
        return _on_grid(logits.argmax(1), image.affine, hu.shape, affine, "zeros")


def _apply(path: Path, inferer: Any, image: MetaTensor, segmenter: ScriptSegmenter | BundleSegmenter) -> Tensor:
    """Logits ``[1, C, ...]`` of an image ``[1, ...]``, checked to have the classes of the label map."""
    batch = image.as_tensor()[None].to(segmenter.device)
    try:
        logits = inferer(batch, segmenter.network)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: the network fails on an input of shape {tuple(batch.shape)} ({_gist(error)}); "
            "correct the label map's window, or the bundle's inferer"
        ) from error
    highest = max(max(ids) for ids in segmenter.description.labels.values())
    shape = tuple(getattr(logits, "shape", ()))
    if shape[2:] != tuple(batch.shape[2:]) or shape[1] <= highest:
        raise ValueError(
            f"{path}: the network answers {tuple(batch.shape)} with {shape or type(logits).__name__}, which is not one "
            f"logit per voxel and class, up to class {highest} of the label map; correct the map or export the network "
            "so that it does"
        )
    return logits


def _with_spacing(hu: np.ndarray, affine: np.ndarray, spacing_mm: float) -> MetaTensor:
    """A volume ``[1, U, V, W]`` with isotropic voxels, smoothed first where these are larger (no aliasing)."""
    wider = np.maximum(spacing_mm / nib.affines.voxel_sizes(affine), 1.0)
    smooth = gaussian_filter(hu.astype(np.float32), np.sqrt((wider**2 - 1) / 12), mode="nearest")
    image = MetaTensor(torch.from_numpy(smooth)[None], affine=torch.as_tensor(affine))
    return Spacing([spacing_mm] * 3, mode="bilinear", padding_mode="border")(image)


def _on_grid(
    classes: Tensor, affine: Tensor, shape: tuple[int, ...], to_affine: np.ndarray, padding: str
) -> np.ndarray:
    """Classes ``[1, ...]`` of the nearest voxels, on the grid ``[U, V, W]`` of ``shape`` and ``to_affine``, int16."""
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


def _meanings(labels: Any) -> dict[str, Ids]:
    lists = list(labels.values()) if isinstance(labels, Mapping) else [None]
    if not all(isinstance(values, list) and values and _are_numbers(values, len(values)) for values in lists):
        raise ValueError(f'dataset_labels maps names to lists of values, got {labels!r}; write e.g. {{"lung": [4]}}')
    return {_column(name): tuple(int(value) for value in values) for name, values in labels.items()}


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list | tuple) and len(values) == count and all(isinstance(v, int | float) for v in values)


def _column(name: str) -> str:
    """A structure's name as part of a column's."""
    return "_".join(str(name).split())


def _gist(error: BaseException) -> str:
    """What the innermost cause of an error says, in one line; TorchScript's own comes after a traceback."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    return text.rpartition("RuntimeError: ")[2].splitlines()[0]
