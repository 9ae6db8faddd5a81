"""The data pipeline on a broker in memory, with real worker processes: requests in, fits out."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bec_lib import messages as m
from bec_lib.broker import Delivery
from bec_lib.endpoints import MessageEndpoints as E
from bec_lib.errors import ReasonCode
from bec_lib.service import Service, ServiceConfig
from bec_lib.testing import fake_broker, fake_server
from data_pipeline.app import DataPipeline
from data_pipeline.runners.local import LocalRunner, WorkDone

SCAN = "0190-scan"


class Beamline:
    """Everybody around the data pipeline, and its loop turned by hand."""

    def __init__(self, runner=None, server=None):
        self.server = server or fake_server()
        self.client = fake_broker(self.server, service="client", user="ann")
        self.bundler = fake_broker(self.server, service="scan_bundler")
        self.scan_server = fake_broker(self.server, service="scan_server")
        self.service = Service(
            "data_pipeline", ServiceConfig(), fake_broker(self.server, service="data_pipeline")
        )
        self.service.take_role()
        self.app = DataPipeline(self.service, runner(self.service.inbox.post) if callable(runner) else runner)
        self.app.start()
        self.count = 0

    def close(self):
        self.app.stop()
        self.service.close()

    def turn_until(self, condition, timeout_s=60.0):
        end = time.monotonic() + timeout_s
        while not (found := condition()):
            assert time.monotonic() < end, "nothing came"
            due = self.app.deadline()
            wait = 0.2 if due is None else max(0.0, min(0.2, due - time.monotonic()))
            self.app.handle(self.service.inbox.take(wait))
            if due is not None and time.monotonic() >= due:
                self.app.on_deadline()
        return found

    def hello(self, user="ann"):
        self.client.append(E.client_hello, m.ClientHelloMessage(user=user, client_id="c1"))

    def ask(self, request_id="r1", **fields):
        fields.setdefault("models", ["GaussianModel", "ConstantModel"])
        self.client.append(
            E.dap_request("ann"), m.DAPRequestMessage(request_id=request_id, client_id="c1", **fields)
        )

    def answers(self, request_id="r1"):
        found = self.client.entries(E.dap_response("c1"))
        return [d.message for d in found if isinstance(d, Delivery) and d.message.request_id == request_id]

    def answer(self, request_id="r1", timeout_s=60.0):
        return self.turn_until(lambda: self.answers(request_id), timeout_s)[0]

    def results(self):
        return [d.message for d in self.client.entries(E.processed_data(SCAN))]

    def status(self, state, **fields):
        self.scan_server.append(
            E.scan_status,
            m.ScanStatusMessage(
                scan_id=SCAN,
                scan_number=7,
                status=state,
                scan_name="line_scan",
                request_id="q1",
                timestamp=time.time(),
                motors=["samx"],
                **fields,
            ),
        )

    def schema(self):
        self.scan_server.append(
            E.scan_schema(SCAN),
            m.ScanSchemaMessage(
                scan_id=SCAN,
                signals=[
                    m.SignalSchema(device="samx", signal="samx", unit="mm"),
                    m.SignalSchema(device="bpm", signal="bpm_label", dtype="str"),
                    m.SignalSchema(device="bpm", signal="bpm"),
                    m.SignalSchema(device="eiger", signal="roi", shape=[10]),
                ],
                motors=["samx"],
            ),
        )

    def points(self, x, y):
        first, self.count = self.count, self.count + len(x)
        self.bundler.batch().append_at(
            E.scan_points(SCAN),
            m.PointsMessage(
                scan_id=SCAN,
                first_index=first,
                count=len(x),
                values=[list(map(float, x)), ["a"] * len(x), list(map(float, y)), [[0] * 10] * len(x)],
                device_times=[[0.0] * len(x)] * 4,
                server_times=[0.0] * len(x),
            ),
            f"{self.count}-0",
            after=f"{first}-0",
        ).commit()

    def seal(self):
        self.bundler.batch().append_at(
            E.scan_points(SCAN),
            m.SealMessage(scan_id=SCAN, count=self.count, status="closed"),
            f"{self.count}-1",
            after=f"{self.count}-0",
        ).commit()


@pytest.fixture(scope="module")
def warm():
    """One pipeline for the tests which need a real worker: lmfit is imported once."""
    beamline = Beamline()
    beamline.hello()
    yield beamline
    beamline.close()


@pytest.fixture
def beamline(warm):
    """The warm pipeline with a new scan."""
    global SCAN
    SCAN = f"scan-{time.time_ns()}"
    warm.count = 0
    return warm


@pytest.fixture
def request_id():
    return f"r-{time.time_ns()}"


def peak(n=41, center=0.3, seed=1):
    x = np.linspace(-1, 1, n)
    y = np.random.default_rng(seed).poisson(2000 * np.exp(-((x - center) ** 2) / 2 / 0.15**2) + 80)
    return x, y.astype(float)


def test_given_arrays_are_fitted(beamline, request_id):
    x, y = peak()
    beamline.ask(request_id, x_data=x, y_data=y)
    answer = beamline.answer(request_id)
    assert answer.success and answer.error is None
    assert answer.fit.params["center"] == pytest.approx(0.3, abs=4 * answer.fit.errors["center"])
    assert answer.fit.errors["center"] < 0.005
    assert answer.fit.num_points == 41 and len(answer.fit.curve_x) == len(answer.fit.curve_y) >= 500
    assert "center" in answer.fit.report


def test_a_live_fit_follows_the_points_and_ends_with_the_seal(beamline, request_id):
    x, y = peak()
    beamline.status("open")
    beamline.ask(request_id, scan_id=SCAN, continuous=True)
    beamline.schema()
    beamline.points(x[:20], y[:20])
    beamline.turn_until(beamline.results)
    assert not beamline.answers(request_id)
    beamline.points(x[20:], y[20:])
    beamline.status("closed")
    beamline.seal()
    answer = beamline.answer(request_id)
    results = beamline.results()
    assert [r.final for r in results] == [False] * (len(results) - 1) + [True]
    assert results[0].fit.num_points == 20 and results[-1].fit.num_points == 41
    assert (results[-1].x, results[-1].y) == ("samx.samx", "bpm.bpm")
    assert answer.fit.params == results[-1].fit.params
    assert answer.fit.params["center"] == pytest.approx(0.3, abs=0.01)


def test_fits_vanish_some_time_after_the_scan_whenever_they_were_made(beamline, request_id):
    """The file writer had set the expiry of the scan's streams before there was a fit."""
    beamline.status("open")
    beamline.schema()
    beamline.points(*peak())
    beamline.ask(request_id, scan_id=SCAN)
    beamline.answer(request_id)
    redis, key = beamline.client.redis, beamline.client.key(E.processed_data(SCAN))
    assert redis.ttl(key) == -1
    beamline.status("closed")
    beamline.turn_until(lambda: redis.ttl(key) > 0)
    redis.persist(key)
    beamline.seal()
    beamline.ask(f"{request_id}-2", scan_id=SCAN)
    beamline.answer(f"{request_id}-2")
    assert 0 < redis.ttl(key) <= E.processed_data(SCAN).expires_s


def test_a_finished_scan_is_fitted_as_long_as_its_points_are_there(beamline, request_id):
    beamline.status("open")
    beamline.schema()
    beamline.points(*peak())
    beamline.status("closed")
    beamline.seal()
    beamline.ask(request_id, scan_id=SCAN, x="samx", y="bpm.bpm")
    assert beamline.answer(request_id).fit.num_points == 41


def test_a_running_scan_is_fitted_once_with_the_points_it_has(beamline, request_id):
    beamline.status("open")
    beamline.schema()
    x, y = peak()
    beamline.points(x[:30], y[:30])
    beamline.ask(request_id, scan_id=SCAN)
    assert beamline.answer(request_id).fit.num_points == 30


def test_a_scan_that_has_just_ended_is_fitted_with_its_last_points(beamline, request_id):
    """The client hears of the end before the bundler has written the last points."""
    beamline.status("open")
    beamline.schema()
    x, y = peak()
    beamline.points(x[:30], y[:30])
    beamline.status("closed")
    beamline.ask(request_id, scan_id=SCAN)
    beamline.turn_until(lambda: request_id in beamline.app._jobs)
    assert not beamline.answers(request_id)
    beamline.points(x[30:], y[30:])
    beamline.seal()
    assert beamline.answer(request_id).fit.num_points == 41


def test_two_fits_on_different_columns_of_one_scan(beamline, request_id):
    """The second one wants a column that the first did not read; both see all points."""
    beamline.status("open")
    beamline.schema()
    x, y = peak()
    beamline.points(x[:30], y[:30])
    beamline.ask(
        request_id + "a", scan_id=SCAN, continuous=True, models=["StatisticsModel"], x="samx", y="samx"
    )
    beamline.turn_until(beamline.results)
    beamline.ask(request_id + "b", scan_id=SCAN, continuous=True)
    beamline.points(x[30:], y[30:])
    beamline.seal()
    assert beamline.answer(request_id + "a").fit.num_points == 41
    assert beamline.answer(request_id + "b").fit.num_points == 41


@pytest.mark.parametrize(
    "fields, code, words",
    [
        ({"models": ["GausianModel"]}, ReasonCode.NOT_FOUND, "did you mean GaussianModel"),
        ({"models": []}, ReasonCode.INVALID_ARGUMENT, "at least one model"),
        ({"x": "samz"}, ReasonCode.NOT_FOUND, "did you mean samx"),
        ({"y": "nothing_like_it"}, ReasonCode.NOT_FOUND, "there are samx.samx, bpm.bpm"),
        ({"y": "eiger.roi"}, ReasonCode.NOT_FOUND, "shape 10"),
        ({"scan_id": "unheard-of"}, ReasonCode.NOT_FOUND, "there is no scan unheard-of"),
        ({"scan_id": "a/b"}, ReasonCode.INVALID_ARGUMENT, "not a scan id"),
        ({"scan_id": None}, ReasonCode.INVALID_ARGUMENT, "x_data is missing"),
        (
            {"scan_id": None, "x_data": np.zeros(3), "y_data": np.zeros(4)},
            ReasonCode.INVALID_ARGUMENT,
            "3 values and y_data 4",
        ),
        ({"models": ["GaussianModel"]}, ReasonCode.WRONG_STATE, "3 free parameters and there are 2 points"),
        (
            {"models": ["ConstantModel"], "parameters": {"d": {}}},
            ReasonCode.INVALID_ARGUMENT,
            "no parameter 'd'",
        ),
        (
            {"models": ["ConstantModel"], "parameters": {"c": {"expr": "__import__('os').getpid()"}}},
            ReasonCode.INVALID_ARGUMENT,
            "cannot be used",
        ),
    ],
)
def test_a_request_that_cannot_be_met_is_answered_in_words(beamline, request_id, fields, code, words):
    beamline.status("open")
    beamline.schema()
    beamline.points([0, 1], [1, 2])
    beamline.ask(request_id, **({"scan_id": SCAN} | fields))
    answer = beamline.answer(request_id)
    assert not answer.success and answer.fit is None
    assert answer.error.code == code
    assert words in answer.error.error_message


def test_a_malformed_request_is_answered_and_the_next_one_fitted(beamline, request_id):
    broken = m.DAPRequestMessage.model_construct(request_id=request_id, client_id="c1", models="many")
    beamline.client.append(E.dap_request("ann"), broken)
    beamline.client.redis.xadd(beamline.client.key(E.dap_request("ann")), {"d": b"\xc1nonsense"})
    beamline.ask(request_id + "2", x_data=np.arange(4.0), y_data=np.ones(4), models=["ConstantModel"])
    answer = beamline.answer(request_id)
    assert answer.error.code == ReasonCode.MALFORMED and "models" in answer.error.error_message
    assert beamline.answer(request_id + "2").fit.params["c"] == pytest.approx(1.0)


def test_a_repeated_request_gets_the_first_answer(beamline, request_id):
    for _ in range(2):
        beamline.ask(request_id, x_data=np.arange(4.0), y_data=np.ones(4), models=["ConstantModel"])
        beamline.answer(request_id)
    beamline.turn_until(lambda: len(beamline.answers(request_id)) == 2)
    first, second = beamline.answers(request_id)
    assert first.fit.report == second.fit.report


def test_every_scan_is_fitted_by_itself_if_so_configured(beamline):
    beamline.client.put(
        E.dap_config, m.DAPConfigMessage(enabled=True, models=["GaussianModel", "LinearModel"])
    )
    try:
        beamline.status("open")
        beamline.schema()
        beamline.points(*peak())
        beamline.status("closed")
        beamline.seal()
        beamline.turn_until(lambda: beamline.results() and beamline.results()[-1].final)
    finally:
        beamline.client.put(E.dap_config, m.DAPConfigMessage(enabled=False))
    result = beamline.results()[-1]
    assert result.request_id == "auto"
    assert result.fit.params["center"] == pytest.approx(0.3, abs=0.01)


class HeldRunner:
    """Takes work and does nothing until told to."""

    def __init__(self):
        self.work = []

    def submit(self, work):
        self.work.append(work)

    def warm(self):
        pass

    def stop(self):
        pass


def test_a_fit_that_hangs_is_answered_and_the_service_goes_on():
    hasty = Beamline(lambda post: LocalRunner(post, fit_timeout_s=0.5))
    hasty.hello()
    data = {"x_data": np.arange(4.0), "y_data": np.ones(4), "models": ["ConstantModel"]}
    hasty.ask("first", **data)
    assert hasty.answer("first").success
    os.kill(hasty.app._runner.pids[0], signal.SIGSTOP)
    hasty.ask("hung", **data)
    answer = hasty.answer("hung")
    assert answer.error.code == ReasonCode.TIMEOUT and "longer than 0.5 s" in answer.error.error_message
    hasty.ask("next", **data)
    assert hasty.answer("next").success
    hasty.close()


def test_a_restarted_pipeline_answers_what_was_open_and_nothing_twice():
    global SCAN
    SCAN = "restart"
    first = Beamline(HeldRunner())
    first.hello()
    for name in ("done", "open"):
        first.ask(name, x_data=np.arange(3.0), y_data=np.ones(3), models=["ConstantModel"])
    first.turn_until(lambda: len(first.app._jobs) == 2)
    # The second one is answered, the first is not: the cursor must stay before both.
    first.app.handle([WorkDone("done", error="bad luck")])
    first.ask("late", x_data=np.arange(3.0), y_data=np.ones(3), models=["Nonsense"])
    first.answer("late")
    first.close()

    runner = HeldRunner()
    second = Beamline(runner, first.server)
    second.turn_until(lambda: runner.work)
    second.turn_until(lambda: not second.app.handle(second.service.inbox.take(0.1)))
    assert [work.key for work in runner.work] == ["open"]
    assert len(second.answers("late")) == 1 and len(second.answers("done")) == 1
    second.close()


def test_a_scan_that_ends_before_its_devices_are_staged_ends_the_fit():
    global SCAN
    SCAN = "never-staged"
    beamline = Beamline(HeldRunner())
    beamline.hello()
    beamline.status("open")
    beamline.ask("r1", scan_id=SCAN, continuous=True)
    beamline.turn_until(lambda: beamline.app._jobs)
    beamline.status("aborted")
    beamline.turn_until(lambda: beamline.app.deadline() is not None)
    for job in beamline.app._jobs.values():
        job.give_up = time.monotonic()
    assert "ended (aborted) without a point" in beamline.answer().error.error_message
    assert beamline.results()[-1].final
    beamline.close()


def test_the_models_are_published_without_lmfit():
    """In a process of its own: other tests here import lmfit."""
    code = """
import sys
from bec_lib.service import Service, ServiceConfig
from bec_lib.testing import fake_broker
from bec_lib.endpoints import MessageEndpoints as E
from data_pipeline.app import DataPipeline
service = Service("data_pipeline", ServiceConfig(), fake_broker(service="data_pipeline"))
service.take_role()
app = DataPipeline(service)
app.start()
models = service.broker.get(E.available_models).message.models
assert models["GaussianModel"].parameters == ["amplitude", "center", "sigma"], models
assert not {"lmfit", "scipy"} & set(sys.modules)
app.stop()
service.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
