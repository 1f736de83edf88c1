"""Runs ``python -m monai.bundle`` in forks of one process that has already imported everything: seconds faster each.

Reads one JSON request per line from stdin, ``{"arguments", "log", "prelude"}``; answers with the child's process id
and, when it has ended, with its exit code (minus the signal's number if a signal ended it).
"""

from __future__ import annotations

import json
import os
import runpy
import sys

import monai.bundle  # noqa: F401
import torch
import torch._dynamo  # every optimizer imports it
import torch.utils.tensorboard


def run(arguments: list[str], log: str, prelude: str) -> int:
    """What the command would do in this process, its output in the file ``log``; the exit code."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.seed()  # a fresh interpreter does not inherit a generator either
    sys.argv = ["monai.bundle", *arguments]
    try:
        exec(prelude, {})
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return int(stop.code or 0)
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
