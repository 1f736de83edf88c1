"""What ``torchrun`` does, in forks of a process that has imported everything already."""

import socket

_FORK = """
import os, sys
ranks = []
for rank in range({count}):
    pid = os.fork()
    if pid == 0:
        address = {{"MASTER_ADDR": "localhost", "MASTER_PORT": "{port}", "WORLD_SIZE": "{count}"}}
        os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank))
        break
    ranks.append(pid)
else:
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in ranks))
"""


def free_port() -> int:
    """A TCP port that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def as_torchrun(count: int) -> str:
    """Code that goes on in ``count`` processes, each with its rank in the environment; their parent waits for them."""
    return _FORK.format(count=count, port=free_port())
