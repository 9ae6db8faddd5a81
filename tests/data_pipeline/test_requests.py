"""Which requests are open, and how far their streams are done with."""

import numpy as np
import pytest

from bec_lib.errors import ParameterError
from bec_lib.messages import DAPRequestMessage, DAPResponseMessage
from data_pipeline.requests import KEEP_ANSWERS, RequestLog, arrays


def answer(request_id):
    return DAPResponseMessage(request_id=request_id, success=True)


def test_the_cursor_stays_before_the_oldest_open_request():
    log = RequestLog()
    for number in (1, 2, 3):
        assert log.begin("s", f"{number}-0", f"r{number}")
    log.pass_over("s", "4-0")
    log.end("c", answer("r2"))
    assert log.take_cursors() == {}
    log.end("c", answer("r1"))
    assert log.take_cursors() == {"s": "2-0"}
    assert log.take_cursors() == {}
    log.end("c", answer("r3"))
    assert log.take_cursors() == {"s": "4-0"}


def test_a_repeat_is_no_second_request():
    log = RequestLog()
    assert log.begin("s", "1-0", "r")
    assert not log.begin("s", "2-0", "r") and log.answer_to("r") is None
    log.end("c", answer("r"))
    assert not log.begin("s", "3-0", "r") and log.answer_to("r") == ("c", answer("r"))
    assert log.take_cursors() == {"s": "3-0"}


def test_answers_are_remembered_within_bounds():
    log = RequestLog()
    for number in range(KEEP_ANSWERS + 1):
        log.begin("s", f"{number + 1}-0", f"r{number}")
        log.end("c", answer(f"r{number}"))
    assert log.answer_to("r0") is None and log.answer_to("r1") is not None


def request(**fields):
    return DAPRequestMessage(request_id="r", client_id="c", models=["ConstantModel"], **fields)


def test_arrays_of_any_number_type_become_floats():
    x, y = arrays(request(x_data=np.arange(3), y_data=np.array([True, False, True])))
    assert x.dtype == y.dtype == np.float64 and y.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "fields, words",
    [
        ({}, "x_data is missing"),
        ({"x_data": np.zeros(2)}, "y_data is missing"),
        ({"x_data": np.zeros(2), "y_data": np.zeros(3)}, "2 values and y_data 3"),
        ({"x_data": np.zeros((2, 2)), "y_data": np.zeros(2)}, r"x_data .* shape \(2, 2\)"),
        ({"x_data": np.zeros(2), "y_data": np.array(["a", "b"])}, "y_data .* type <U1"),
    ],
)
def test_arrays_that_cannot_be_fitted_are_refused(fields, words):
    with pytest.raises(ParameterError, match=words):
        arrays(request(**fields))
