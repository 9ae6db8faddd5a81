"""The pool of worker processes: fits, hung fits, crashes, idleness, death."""

import os
import queue
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from bec_lib.errors import ReasonCode
from data_pipeline.runners.local import LocalRunner, Work


class Pool:
    def __init__(self, **options):
        self.answers = queue.Queue()
        self.runner = LocalRunner(self.answers.put, **options)

    def fit(self, key="k", n=5):
        self.runner.submit(Work(key, ["ConstantModel"], np.arange(float(n)), np.ones(n), {}))

    def answer(self):
        return self.answers.get(timeout=60)

    def warm(self):
        """A worker that has its imports."""
        self.fit("warm")
        assert self.answer().outcome is not None
        (pid,) = self.runner.pids
        return pid


@pytest.fixture
def pool():
    pools = []

    def make(**options):
        pools.append(Pool(**options))
        return pools[-1]

    yield make
    for made in pools:
        made.runner.stop()
        assert made.runner.pids == []


def test_no_process_is_started_before_the_first_fit_and_one_serves_many(pool):
    made = pool(processes=2)
    assert made.runner.pids == []
    pid = made.warm()
    for key in "ab":
        made.fit(key)
        answer = made.answer()
        assert answer.key == key and answer.outcome["params"]["c"] == pytest.approx(1)
    assert made.runner.pids == [pid]


def test_a_fit_that_hangs_is_ended_and_the_next_one_gets_a_new_process(pool):
    made = pool(fit_timeout_s=0.3)
    pid = made.warm()
    os.kill(pid, signal.SIGSTOP)  # hangs as hard as a process can
    made.fit("hung")
    answer = made.answer()
    assert answer.key == "hung" and answer.code is ReasonCode.TIMEOUT
    assert "took longer than 0.3 s" in answer.error
    assert not psutil.pid_exists(pid)
    assert made.warm() != pid


def test_a_process_that_dies_is_told_and_replaced(pool):
    made = pool()
    pid = made.warm()
    os.kill(pid, signal.SIGSTOP)
    made.fit("lost")
    os.kill(pid, signal.SIGKILL)
    answer = made.answer()
    assert answer.key == "lost" and "by signal 9" in answer.error
    assert made.warm() != pid


def test_an_idle_process_is_ended_and_a_later_fit_starts_another(pool):
    made = pool(idle_s=0.05)
    pid = made.warm()
    psutil.Process(pid).wait(timeout=10)
    assert made.warm() != pid


def test_stopping_does_not_wait_for_a_hung_fit(pool):
    made = pool(fit_timeout_s=60)
    pid = made.warm()
    os.kill(pid, signal.SIGSTOP)
    made.fit("hung")
    began = time.monotonic()
    made.runner.stop()
    assert time.monotonic() - began < 5
    assert not psutil.pid_exists(pid)


def test_the_worker_dies_with_a_service_that_is_killed():
    """It is stopped, so that it cannot see the closed socket: only the parent-death signal ends it."""
    code = """
import os, queue, signal, numpy as np
from data_pipeline.runners.local import LocalRunner, Work
answers = queue.Queue()
runner = LocalRunner(answers.put)
runner.submit(Work("k", ["ConstantModel"], np.arange(3.0), np.ones(3), {}))
answers.get()
(pid,) = runner.pids
os.kill(pid, signal.SIGSTOP)
print(pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as service:
        worker = psutil.Process(int(service.stdout.readline()))
        service.kill()
        worker.wait(timeout=10)
