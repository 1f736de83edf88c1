"""Runs programs in forks of one process that has already imported torch and MONAI: seconds faster each.

Reads one JSON request per line from stdin, ``{"code", "cwd", "log"}``; answers with the child's process id and, when it
has ended, with its exit code (minus the signal's number if a signal ended it).
"""

from __future__ import annotations

import json
import os
import sys

import monai.bundle  # noqa: F401
import torch
import torch._dynamo  # every optimizer imports it
import torch.utils.tensorboard


def run(code: str, cwd: str, log: str) -> int:
    """What ``python -c code`` would do in the folder ``cwd``, its output in the file ``log``; the exit code."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.seed()  # a fresh interpreter does not inherit a generator either
    os.chdir(cwd)
    sys.path[0] = cwd
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def main() -> None:
    """Serve requests until stdin closes."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = run(**json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
