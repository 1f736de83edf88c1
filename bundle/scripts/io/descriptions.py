"""What ``--help`` says of every option: one line each, and its default in words where the configuration computes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

COMMON = {
    "adapt_intensity": "match films without an absolute scale to simulated radiographs; false refuses them",
    "air_value": "grey value of the open beam",
    "amp": "bfloat16 where it is safe",
    "angle_deg": "angle between the view and its axis; 0 if not stated",
    "any_geometry": "also accept initial weights of another grid or exam",
    "backbone_channels": "input channels of the feature networks",
    "batch_size": "exams per iteration and process",
    "body_scale": "factor on every length of a phantom; a small child: 0.6",
    "bone_weight": "weight of a bone voxel",
    "centre": "row and column where the central ray meets the image; its middle if not stated",
    "ckpt_dir": "folder of the checkpoints, from which an interrupted training resumes",
    "close_run": "end the MLflow run with the program; False leaves it open for an evaluation",
    "common": "overlays applied over every method's own",
    "compile": "compile the network; takes minutes before the first iteration",
    "config_file": "configuration of the workflow, or several: later ones override earlier ones",
    "count": "number of phantoms",
    "consistency": "noise of the films in line integrals: the volume is changed at the end to meet them within it",
    "consistency_steps": "conjugate-gradient steps of that change",
    "dataset_dir": "folder of the data: prepared cases (prepare.json), or exams for inference",
    "detector_pixels": "pixels per side of each detector",
    "device": "device to compute on, e.g. cpu, cuda or cuda:1",
    "download": "download the data set into the input folder",
    "ema_momentum": "momentum of the averaged weights",
    "exclude": "glob patterns of files to leave out, matched against the path below the input folder",
    "experiment_name": "experiment of the MLflow server",
    "exposures": "factors by which the open beam is brighter than assumed",
    "fid_backbone": "feature network for FID: a TorchScript file, or the name of a published network",
    "fastest_kernels": "choose the GPU's kernels by speed; sums then differ in their last digits between runs",
    "film_check": "weights of the check for films the wrong way round; '' switches it off",
    "film_reference": "values of radiographs that displayed films are adapted to in training; '' for no such films",
    "film_share": "share of the training exams that become film-like",
    "first_seed": "seed of the first phantom",
    "fit_split": "split to fit on",
    "form": "encoding of the files: processing (counts) or presentation (post-processed)",
    "frame": "frame to read from a film of several frames, from 0",
    "from_truth": "share of exams whose later x_t is made from the truth instead of the network's answer",
    "frontal": "file of the frontal radiograph",
    "frozen": "parts of the network that stay exactly as they are, separated by commas; '' for none",
    "gains": "factors on all line integrals, as from another beam energy",
    "grid_factor": "voxels of the result per side for each of the network's: 1, 2 or 4",
    "measured_factor": "voxels of the result per side that are averaged before measuring",
    "geometry_file": "geometry.json of a prepared case, for --frontal and --lateral files of line integrals",
    "geometry_preset": "the exam: carm, x2ct, chest or parallel",
    "initial_weights": "model.pt to start from",
    "intensity": "what grey values mean: line_integral, counts, log or display; from the header if not stated",
    "interval": "with 0.9, lower.nii.gz and upper.nii.gz enclose the true value in about 90 % of the voxels",
    "intervals": "quantiles that calibrate the predicted error; '' for no prediction",
    "iterations_per_epoch": "iterations per epoch",
    "kept_cts": "CTs kept in memory, the others being read when drawn; all if not stated",
    "labels": "JSON file that describes the segmenter; its own name with .json if not stated",
    "lateral": "file of the lateral radiograph",
    "learning_batch": "voxels per iteration",
    "learning_rate": "learning rate of AdamW",
    "learning_steps": "training iterations",
    "log_dir": "folder of the TensorBoard logs",
    "loss_weights": "weights of the objective's terms by name; a missing term has weight 0",
    "lpips_backbone": "feature network for LPIPS: a TorchScript file, or the name of a published network",
    "max_epochs": "epochs to train",
    "measured_dir": "prepared cases to measure on",
    "metal_fraction": "share of the phantoms with spinal implants",
    "mean_volume": "mean training volume, from which --support measures how far a result deviates",
    "method": "name of the method in the tables",
    "noise_power": "timesteps are drawn as T u^power: above 1 prefers clean timesteps, below 1 noisy ones",
    "num_workers": "processes that draw views on the CPU; with 0, they are drawn on the training device",
    "one_view": "whether the network also takes a single radiograph",
    "only": "methods to run; all if not stated",
    "orientation": "patient direction (L R A P H F) of increasing column, then of increasing row, e.g. LF",
    "output": "file to write",
    "output_dir": "folder to write",
    "outputs": "files to write: nifti, dicom, report, figure; also capture, parametric_map (of the DICOM series)",
    "overwrite": "redo finished exams",
    "passes": "how often the stage runs, each time with the residual of the previous pass",
    "phantom_reuse": "items of the stream per new phantom",
    "phantom_share": "share of all items that comes from synthetic torsos drawn during training",
    "phantom_workers": "processes that draw phantoms ahead; with 0, phantoms are drawn when needed",
    "photons": "photons per pixel in the open beam; no noise if not stated",
    "pixel_spacing_mm": "pitch on the detector: one number, or rows and columns",
    "planned_epochs": "number of rounds times local epochs, over which the learning rate falls",
    "power": "spacing of the timesteps: 1 is even; larger values visit more clean ones, smaller values noisy ones",
    "precision": "precision of the engine: fp32, tf32, fp16 or bf16",
    "projection_weight": "weight of the projection term, lambda of eq (10)",
    "reference": "distribution of grey values that films are adapted to; '' works without",
    "refining_weights": "weights of the stage that refines the grid; '' interpolates instead",
    "report": "full, or light without the library that turns the volume",
    "retries": "how often a scan is repeated that failed because of its worker or the file system",
    "rollout": "share of batches made from the network's own estimates",
    "rotation_deg": "clockwise rotation of the patient in the image; 0 if not stated",
    "run_name": "name of the MLflow run",
    "run_params": "further parameters to record",
    "sample_batch": "samples that go through the network together",
    "sampler": "dpmpp_2m, ddim or ddpm",
    "samples": "samples per exam: with more than one, ct.nii.gz is their mean and std.nii.gz their spread",
    "scale_weights": "weights of the network that predicts the scale of the error",
    "scheduler": "address of the Dask scheduler",
    "seed": "seed of the random numbers: the same seed gives the same result",
    "segmenter": "TorchScript file or folder of a MONAI bundle",
    "source_side": "side of the tube: anterior or posterior, right or left",
    "source_spacing_mm": "spacing of the whole-body volume for random training views",
    "source_to_detector_mm": "distance from the tube to the detector",
    "source_to_isocentre_mm": "distance from the tube to the middle of the patient",
    "split": "split to measure on",
    "splits_csv": "table with columns name, split (train, val, test) and optionally patient",
    "stage1_weights": "model.pt of the coarse network; needed for training",
    "stage2_weights": "model.pt of the second stage; needed for training",
    "std_temperature": "factor on the standard deviation of the samples that a calibration has found",
    "steps": "network evaluations per volume",
    "structure_weight": "weight of 1 - SSIM3D",
    "support": "write support.nii.gz: share of the deviation from the mean volume that the films can see",
    "submodule": "part of the network that becomes an engine",
    "task": "task of the Medical Segmentation Decathlon",
    "test": "without a table: share of the patients (below 1) or their number (1 or more) for testing",
    "tile": "coarse voxels per side computed at a time: smaller tiles need less memory and more time",
    "tiles": "tiles per exam and iteration",
    "tilt_deg": "tilt of the view against its axis; 0 if not stated",
    "tracking": "mlflow, or a file of its settings such as bundle/configs/mlflow.json",
    "tracking_uri": "address of the MLflow server",
    "training_dir": "prepared cases whose mean training volume is the baseline",
    "training_sets": "mixture of data sets, each with its share",
    "training_tile": "coarse voxels per side of a tile in training",
    "turns_deg": "rotations of the lateral view alone, and of both views, about the body's long axis",
    "val": "without a table: share of the patients (below 1) or their number (1 or more) for validation",
    "val_interval": "epochs between validations",
    "val_power": "spacing of the timesteps in validation",
    "val_steps": "network evaluations per volume in validation",
    "view_dropout": "share of exams that lose one of their views in training",
    "voxels": "voxels of each case",
    "views": "views to reconstruct from: frontal,lateral or, if the network accepts it, one of them",
    "views_per_patient": "random views drawn per patient",
    "volume_shape": "voxels of the standard volume",
    "volume_spacing_mm": "voxel spacing of the standard volume",
    "volumes": "folders of volumes by method",
    "weight_decay": "weight decay of AdamW",
    "weights": "weights to use",
    "workers": "processes; each needs about 2 GiB for a scan of 512 x 512 x 300 voxels",
}
"""Options that mean the same in every configuration."""
OF_CONFIG: Mapping[str, Mapping[str, str]] = {
    "benchmark": {"reference": "method that the others are compared with"},
    "calibrate": {"samples": "samples per case: 19 give exact 50, 80 and 90 % intervals, 39 also 95 %"},
    "design": {"reference": "method that the others are compared with"},
    "export_radiographs": {"input": "prepared case, or a folder of prepared cases"},
    "inference": {
        "batch_size": "exams that go through the network together",
        "input": "exam, or a folder of exams: DICOM files, pictures or NIfTI",
        "workers": "processes that write results while the network does the next exams",
    },
    "inference_trt": {"sample_batch": "highest batch, for which the engine is planned"},
    "intervals": {"intervals": "not used: this run makes them"},
    "orientation": {"exams": "number of simulated exams by split", "steps": "training iterations"},
    "prepare": {"input": "folder, searched recursively for DICOM series and volumes"},
    "train": {"weights": "file to write"},
}
"""Options that mean something else there, by the name of the configuration file."""
DEFAULTS = {
    "@dataset_dir": "that of --dataset_dir",
    "@input": "that of --input",
    "@scale_weights": "that of --scale_weights",
    "$@bundle_root + '/eval/' + @split": "bundle/eval/SPLIT",
    "$@bundle_root + ('/models/intervals.json' if @grid_factor == 1 else '/models/intervals_fine.json')": (
        "bundle/models/intervals_fine.json, or intervals.json beside it for the network's grid"
    ),
    "$@bundle_root + '/models/auxiliary/error_scale' + ('.pt' if @grid_factor == 1 else '_fine.pt')": (
        "bundle/models/auxiliary/error_scale_fine.pt, or error_scale.pt beside it for the network's grid"
    ),
    "$dict([(@dataset_dir, 1.0)])": "that of --dataset_dir alone",
    "$[1.2, 1 / 1.2]": "[1.2, 1/1.2]",
    "$4 if torch.device(str(@device)).type == 'cuda' else 1": "4 on a GPU, otherwise 1",
    "$max(1, len(os.sched_getaffinity(0)) - 4)": "the number of cores less 4",
    "$monai.utils.path_to_sqlite_uri(@output_dir + '/mlruns.db')": "mlruns.db in --output_dir",
    "$torch.device(str(@device)).type == 'cuda'": "true on a GPU",
    "$torch.device('cpu')": "cpu",
    "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')": "a GPU if there is one",
    "$torch.device('cuda', int(os.environ['LOCAL_RANK'])) if torch.cuda.is_available() else torch.device('cpu')": (
        "one GPU per process if there are any"
    ),
    "scripts.inference.precision.bfloat16_pays": "where it is faster",
}
"""Expressions and components of the configurations, in words."""
_BUNDLE_PATH = re.compile(r"\$@bundle_root \+ '([^']*)'")
_OUTPUT_PATH = re.compile(r"\$@output_dir \+ '/([^']*)'")


def descriptions(files: Iterable[str]) -> dict[str, str]:
    """Return the line of every option by its name, as the configuration files of a run mean it; the last one counts."""
    lines = dict(COMMON)
    for file in files:
        lines |= OF_CONFIG.get(Path(file).stem, {})
    return lines


def readable(value: Any) -> str:
    """Return a default of a configuration as users read or type it; an expression that is not known stays as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        value = value.get("_target_", value)
    text = str(value)
    if path := _BUNDLE_PATH.fullmatch(text):
        return f"bundle{path[1]}"
    if path := _OUTPUT_PATH.fullmatch(text):
        return f"{path[1]} in --output_dir"
    return DEFAULTS.get(text, text)
