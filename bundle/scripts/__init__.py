"""Code behind the bundle's configs: reconstruct a CT volume from two orthogonal radiographs."""

from pathlib import Path

BUNDLE_ROOT = str(Path(__file__).resolve().parents[1])
"""Path of the bundle's folder, so that configs work from any working directory."""
