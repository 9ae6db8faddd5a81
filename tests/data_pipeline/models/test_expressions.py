"""Expressions of parameters are arithmetic and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bec_lib.errors import ParameterError
from data_pipeline.models.expressions import check_expression

NAMES = ["center", "sigma", "amplitude"]


@pytest.mark.parametrize(
    "text",
    ["2*sigma", "center + 4", "-sigma**2 / pi", "sqrt(abs(sigma)) + max(center, 1)", "1e-3", " sigma "],
)
def test_arithmetic_is_accepted(text):
    check_expression(text, "amplitude", NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "open('x')",
        "sigma.real",
        "(lambda: 1)()",
        "[x for x in (1,)]",
        "'a'*10**9",
        "9**9**9",
        "sigma**center",
        "2**1000",
        "eval('1')",
        "sqrt(x=1)",
        "sqrt",
        "other + 1",
        "amplitude + 1",
        "sigma; center",
        "sigma if center else 1",
        "sigma < 1",
        "True",
        "1j",
        "f'{sigma}'",
        "sigma := 1",
        "",
        "1" * 300,
        "(" * 150,
        "\x00",
        "sigma[0]",
        "max(*sigma)",
        "5 % 3",
        "1 << 99",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ParameterError, match="cannot be used"):
        check_expression(text, "amplitude", NAMES)


@given(st.text(alphabet="sigmacenter0123456789+-*/().,_ '\"[]{}=:x\\\n", max_size=60))
def test_no_text_makes_the_check_itself_fail(text):
    try:
        check_expression(text, "amplitude", NAMES)
    except ParameterError:
        pass
