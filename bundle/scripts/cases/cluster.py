"""A Dask cluster as the executor of the preparation."""

from __future__ import annotations

from concurrent.futures import Executor

from monai.utils import optional_import

from scripts.io.options import require_whole

Client, has_dask = optional_import("distributed", name="Client")


def dask_cluster(scheduler: str | None, retries: int = 2) -> Executor:
    """Return the executor of a running Dask cluster, which gives the jobs of a lost worker to others.

    Every worker needs this bundle on its path, the requirements of the bundle, and the folders of scans and cases under
    the same paths.

    Args:
        scheduler: address of the scheduler, e.g. ``tcp://host:8786``.
        retries: how often a job is repeated that failed for other reasons than a bad scan, e.g. a file system.

    Raises:
        ValueError: Dask is not installed, or there is no scheduler at this address.
    """
    require_whole(retries=retries)
    if not has_dask:
        raise ValueError("dask.distributed is not installed; pip install distributed")
    if not scheduler:
        raise ValueError("--scheduler: none given; start one by `dask scheduler` and give its address, tcp://HOST:8786")
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--scheduler: no Dask scheduler answers at {scheduler!r} ({error}); start one by `dask scheduler`"
        ) from error
    return client.get_executor(pure=False, retries=retries)
