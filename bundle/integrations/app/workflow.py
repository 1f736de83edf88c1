"""The bundle's inference workflow for one exam after another, with its network loaded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.data import MetaTensor

OUTPUTS = "nifti,dicom,report"
"""Files that the page shows or offers, named after the bundle's writers."""


class Workflow:
    """The workflow of ``inference.json``, as ``python -m monai.bundle run`` runs it.

    Every exam gets a configuration of its own, in which the loaded network stands for its definition.

    Args:
        config_files: the configuration, or several: later ones override earlier ones.

    Raises:
        RuntimeError: the network cannot be loaded; MONAI wraps the bundle's ``ValueError`` in it.
    """

    def __init__(self, config_files: Sequence[str | Path]) -> None:
        self.config_files = [str(file) for file in config_files]
        self.network = self._parser({}).get_parsed_content("network")

    def check(self, options: Mapping[str, Any]) -> MetaTensor:
        """Read an exam without reconstructing it.

        Args:
            options: options of the command line that name the exam and describe its films.

        Returns:
            The image ``[2, N, N]`` with its exam; see :func:`scripts.exam.exam.exam_of`.

        Raises:
            ValueError: the bundle refuses the films, or there are several exams; MONAI may wrap this in a
                ``RuntimeError``.
        """
        parser = self._parser(options)
        names = parser.get_parsed_content("names")
        if len(names) != 1:
            raise ValueError(f"{len(names)} exams; drop the two films of one exam")
        return parser.get_parsed_content("dataset")[0]["image"]

    def run(self, options: Mapping[str, Any], output_dir: Path, callback: Callable[[int, int], None]) -> None:
        """Reconstruct an exam and write its folder in ``output_dir``.

        Args:
            options: as for :meth:`check`.
            output_dir: parent of the exam's folder.
            callback: called as ``callback(step, steps)`` after every step of the sampler.

        Raises:
            ValueError: the bundle refuses the films; MONAI may wrap this in a ``RuntimeError``.
        """
        parser = self._parser({**options, "output_dir": str(output_dir), "outputs": OUTPUTS})
        parser["network_inferer"]["callback"] = callback
        parser["network"] = self.network
        parser.get_parsed_content("run")

    def _parser(self, options: Mapping[str, Any]) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config(self.config_files)
        parser.update(dict(options))
        return parser
