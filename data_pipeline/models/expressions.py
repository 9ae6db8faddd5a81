"""May this text be the expression of a fit parameter?

lmfit evaluates expressions with asteval, a small interpreter. What reaches it is arithmetic on parameters and
a few functions, and nothing else: a client's text must not become a program.
"""

from __future__ import annotations

import ast
from collections.abc import Collection

from bec_lib.errors import ParameterError

FUNCTIONS = frozenset(
    {
        "abs",
        "arctan",
        "cos",
        "cosh",
        "exp",
        "log",
        "log10",
        "max",
        "min",
        "sin",
        "sinh",
        "sqrt",
        "tan",
        "tanh",
    }
)
CONSTANTS = frozenset({"pi", "e"})
MAX_LENGTH = 200
MAX_EXPONENT = 100
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd)


def check_expression(text: str, owner: str, names: Collection[str]) -> None:
    """Raises ParameterError unless the text is arithmetic (+ - * / **, numbers, FUNCTIONS, CONSTANTS) on the
    named parameters.
    """

    def refuse(why: str) -> ParameterError:
        return ParameterError(
            f"the expression {text[:MAX_LENGTH]!r} for {owner} cannot be used: {why}. Use numbers, + - * / **, "
            f"the parameters {', '.join(sorted(names))} and the functions {', '.join(sorted(FUNCTIONS))}"
        )

    if len(text) > MAX_LENGTH:
        raise refuse(f"it is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise refuse("it is not an expression") from error
    called = {id(node.func) for node in ast.walk(tree.body) if isinstance(node, ast.Call)}
    for node in ast.walk(tree.body):
        match node:
            case ast.Name(id=name) if name in FUNCTIONS and name not in names and id(node) not in called:
                raise refuse(f"the function {name} has no argument")
            case ast.BinOp(op=ast.Pow(), right=right) if not _is_small(right):
                raise refuse(f"an exponent must be a number up to {MAX_EXPONENT}")
            case ast.BinOp(op=op) | ast.UnaryOp(op=op) if isinstance(op, _OPERATORS):
                continue
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
                continue
            case ast.Name(id=name) if name == owner:
                raise refuse("it refers to the parameter itself")
            case ast.Name(id=name) if name in names or name in FUNCTIONS or name in CONSTANTS:
                continue
            case ast.Constant(value=bool()):
                raise refuse("True and False are not numbers")
            case ast.Constant(value=int() | float()):
                continue
            case ast.Name(id=name):
                raise refuse(f"{name!r} is neither a parameter nor a function")
            case ast.operator() | ast.unaryop() | ast.expr_context():
                continue
            case _:
                raise refuse(f"{ast.unparse(node)!r} is not arithmetic")


def _is_small(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and abs(node.value) <= MAX_EXPONENT
    )
