"""Searches a study again and again, in processes that are killed; `test_study.py` starts it.

Each line of the input is the evaluation at which the next process is killed and the seconds after
it, `inf` to let it end; the answer is a line with its exit code. Evaluations are counted, and not
seconds alone, so that fast and slow machines kill equally often. The processes are forked, so that
none waits for torch.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

from conftest import loss_at, small_evaluation, small_study


def main(file: Path, num_trials: int) -> None:
    for line in sys.stdin:
        evaluation, seconds = map(float, line.split())
        heard, told = os.pipe()
        process = os.fork()
        if process == 0:
            search_and_exit(file, num_trials, told)
        os.close(told)
        await_evaluation(heard, evaluation)
        print(exit_code_of(process, time.monotonic() + seconds), flush=True)
        os.close(heard)


def await_evaluation(heard: int, evaluation: float) -> None:
    """Return at the evaluation of that count, or at the process's end."""
    count = 0
    while count < evaluation and os.read(heard, 1):
        count += 1


def exit_code_of(process: int, killed_at: float) -> int:
    while time.monotonic() < killed_at:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def search_and_exit(file: Path, num_trials: int, told: int) -> None:
    try:
        search(file, num_trials, told)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def search(file: Path, num_trials: int, told: int) -> None:
    study = small_study(f"sqlite:///{file}", trials=num_trials, pruner="none")
    while (proposal := study.ask()) is not None:
        number = proposal.number
        study.started(number)
        study.ran_on(number, {"host": "here"})
        for step in (100, 200, 300):
            os.write(told, b".")
            study.report(number, small_evaluation(loss_at(proposal.config, step), step))
        if number % 5 == 1:
            study.prune(number, "stopped early")
        elif number % 5 == 3:
            study.fail(number, "RuntimeError: broken", "Traceback …")
        else:
            study.report_final(number, small_evaluation(loss_at(proposal.config, 300), 300))
            study.complete(number)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
