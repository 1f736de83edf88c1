"""What a user sees of an error: one message, whatever MONAI wraps around it."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.io.errors import TRACEBACK_VARIABLE, SomeFailed, explain_errors

BUNDLE = Path(__file__).parents[2] / "bundle"


@pytest.fixture
def shown(monkeypatch, capsys):
    """What ends up on stderr if an error is not caught."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    explain_errors()

    def uncaught(error: Exception) -> str:
        sys.excepthook(type(error), error, error.__traceback__)
        return capsys.readouterr().err

    return uncaught


def wrapped(error: Exception) -> RuntimeError:
    """As MONAI wraps it."""
    outer = RuntimeError("Failed to evaluate ...")
    outer.__cause__ = error
    return outer


def test_a_value_error_is_its_message_and_where_to_find_more(shown):
    text = shown(wrapped(ValueError("x.dcm: truncated")))
    assert text.startswith("error: x.dcm: truncated\n") and f"{TRACEBACK_VARIABLE}=1" in text


def test_the_account_of_failures_is_printed_as_it_is(shown, monkeypatch):
    account = SomeFailed("2 of 5 cases", ["a: no CT", "b: NaN"])
    assert account.failures == ["a: no CT", "b: NaN"]
    assert shown(wrapped(account)) == "2 of 5 cases failed:\na: no CT\nb: NaN\n"
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    assert shown(account) == "2 of 5 cases failed:\na: no CT\nb: NaN\n"


def test_the_account_of_failures_passes_from_one_process_to_another():
    account = SomeFailed("1 of 2 cases", ["a: no CT"])
    copy = pickle.loads(pickle.dumps(account))
    assert str(copy) == str(account) and copy.failures == account.failures


def test_other_errors_keep_their_traceback(shown, monkeypatch):
    assert "KeyError" in shown(KeyError("x"))
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    assert "ValueError" in shown(ValueError("y"))


def test_a_program_that_some_cases_failed_in_ends_with_status_1():
    code = "from scripts.io.errors import *; explain_errors(); raise SomeFailed('1 of 2 cases', ['a: no CT'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=BUNDLE, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "1 of 2 cases failed:\na: no CT\n")


def test_a_refusal_of_the_file_system_is_one_line(shown):
    refused = PermissionError(13, "Permission denied", "/out/a")
    assert shown(wrapped(refused)).startswith("error: [Errno 13] Permission denied: '/out/a'; check the path")
    assert "Traceback" not in shown(OSError(28, "No space left on device"))
    assert "ConnectionError" in shown(ConnectionError("reset"))  # nothing that the file system said


def test_a_full_gpu_is_one_line_that_says_what_takes_less_memory(shown):
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 1 GiB free.")
    text = shown(wrapped(full))
    assert text.startswith("error: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB free.; to use less")
    assert "--batch_size" in text and "--sample_batch 1" in text and "--device cpu" in text


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupted_program_says_so_in_one_line_and_ends_with_status_130(tmp_path):
    # A shell ignores the signal for what it starts in the background, and pytest's children inherit that.
    listen = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)"
    (tmp_path / "program.py").write_text(
        f"{listen}; from scripts.io.errors import *; explain_errors(); print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-m", "program"]
    environment = os.environ | {"PYTHONPATH": f"{BUNDLE}{os.pathsep}{tmp_path}"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "interrupted; finished results are kept\n"
    assert process.returncode == 130
