"""What does a condition such as `curr.curr < 100 and shutter.state != "open"` say of these values?

A small part of Python's expressions, parsed with `ast` and evaluated here, never by `eval`: comparisons, `and`, `or`,
`not`, `in`, arithmetic on numbers, `abs`, `min`, `max`, numbers, texts, and names of signals. Knows no device: who
evaluates says what the names mean.

Whatever cannot be told is `Unknown`, never a guess: a value that is missing, NaN, an array, a text where a number is
wanted, a division by zero.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bec_lib.errors import ParameterError

MAX_LENGTH = 500
MAX_NODES = 200

# Of a dotted name as written; raises Unknown.
Lookup = Callable[[str], Any]
_Term = Callable[[Lookup], Any]


class Unknown(Exception):
    """It cannot be told; the text says why, for people."""


@dataclass(frozen=True)
class Expression:
    """A condition. text: as it was written. names: the dotted names in it, each once, in order."""

    text: str
    names: tuple[str, ...]
    _term: _Term = field(repr=False, compare=False)
    _opposite: str = field(default="", repr=False, compare=False)

    def holds(self, lookup: Lookup) -> bool:
        """Whether it is true. Raises Unknown."""
        found = self.value(lookup)
        if isinstance(found, str):
            raise Unknown(f"{self.text} is the text {found!r}, which is neither true nor false")
        return bool(found)

    def value(self, lookup: Lookup) -> Any:
        """Its value, a bool, number or text. Raises Unknown."""
        try:
            return self._term(lookup)
        except Unknown:
            raise
        except ZeroDivisionError:
            raise Unknown(f"{self.text} divides by zero") from None
        except (OverflowError, ValueError, TypeError) as error:
            raise Unknown(f"{self.text} cannot be worked out: {error}") from None

    @property
    def opposite(self) -> str:
        """What must hold for it to be false, as text: `curr.curr >= 100`."""
        return self._opposite


def parse(text: str) -> Expression:
    """Raises ParameterError that says what is not understood, and where."""
    if not text.strip():
        raise ParameterError("the condition is empty; write one like `curr.curr < 100`")
    if len(text) > MAX_LENGTH:
        raise ParameterError(f"the condition has {len(text)} characters; at most {MAX_LENGTH} are allowed")
    shown = text.strip()
    try:
        tree = ast.parse(shown, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ParameterError(f"the condition `{shown}` is not understood{where}: {reason}") from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise ParameterError(f"the condition `{shown[:60]}...` is too long; split it into several")
    names: dict[str, None] = {}
    term = _Builder(shown, names).term(tree)
    return Expression(shown, tuple(names), term, _opposite_of(tree))


def plain_value(value: Any, name: str) -> Any:
    """A reading's value as conditions use it: a bool, number or text. Raises Unknown."""
    if value is None:
        raise Unknown(f"{name} has no value")
    if isinstance(value, float):
        if math.isnan(value):
            raise Unknown(f"{name} is not a number (NaN)")
        return value
    if isinstance(value, (bool, int, str)):
        return value
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "size", 1) == 1:
        return plain_value(item(), name)
    raise Unknown(f"{name} is a {type(value).__name__}, which cannot be compared; use a single value")


_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_OPPOSITE: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    # As floats: an integer power may have a million digits.
    ast.Pow: math.pow,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {"abs": abs, "min": min, "max": max}


class _Builder:
    """Makes closures of a tree once, so that evaluating is only calling them."""

    def __init__(self, text: str, names: dict[str, None]):
        self._text = text
        self._names = names

    def term(self, node: ast.expr) -> _Term:
        match node:
            case ast.Constant(value=bool() | int() | float() | str()):
                constant = node.value
                if isinstance(constant, float) and not math.isfinite(constant):
                    raise self._refused(node, "is not a finite number")
                return lambda lookup: constant
            case ast.Name() | ast.Attribute():
                return self._name(node)
            case ast.BoolOp():
                terms = [self.term(value) for value in node.values]
                if isinstance(node.op, ast.And):
                    return lambda lookup: all(_truth(term(lookup)) for term in terms)
                return lambda lookup: any(_truth(term(lookup)) for term in terms)
            case ast.UnaryOp(op=ast.Not()):
                operand = self.term(node.operand)
                return lambda lookup: not _truth(operand(lookup))
            case ast.UnaryOp(op=ast.USub()):
                operand = self.term(node.operand)
                return lambda lookup: -_number(operand(lookup))
            case ast.UnaryOp(op=ast.UAdd()):
                operand = self.term(node.operand)
                return lambda lookup: +_number(operand(lookup))
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                left, right, operate = self.term(node.left), self.term(node.right), _ARITHMETIC[type(node.op)]
                return lambda lookup: _finite(operate(_number(left(lookup)), _number(right(lookup))))
            case ast.Compare():
                return self._comparison(node)
            case ast.Call(func=ast.Name(id="abs" | "min" | "max" as name), keywords=[]) if node.args:
                function = _FUNCTIONS[name]
                if name == "abs" and len(node.args) != 1:
                    raise self._refused(node, "must have one argument")
                arguments = [self.term(argument) for argument in node.args]
                if len(arguments) == 1 and name != "abs":
                    raise self._refused(node, "must have at least two arguments")
                return lambda lookup: function(*[_number(argument(lookup)) for argument in arguments])
        raise self._refused(
            node,
            "is not allowed; use comparisons, and, or, not, in, + - * / % **, abs, min, max, numbers, texts and "
            "signals such as curr.curr",
        )

    def _name(self, node: ast.expr) -> _Term:
        parts: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            raise self._refused(node, "is no name of a signal")
        parts.append(inner.id)
        parts.reverse()
        # As it is typed in the shell.
        name = ".".join(parts[1:] if parts[0] == "dev" and len(parts) > 1 else parts)
        self._names[name] = None
        return lambda lookup: plain_value(lookup(name), name)

    def _comparison(self, node: ast.Compare) -> _Term:
        first = self.term(node.left)
        steps: list[tuple[type[ast.cmpop], _Term]] = []
        for sign, right in zip(node.ops, node.comparators, strict=True):
            kind = type(sign)
            if kind not in _COMPARE:
                raise self._refused(node, "compares by identity; use == or !=")
            steps.append((kind, self._members(right) if kind in (ast.In, ast.NotIn) else self.term(right)))

        def compare(lookup: Lookup) -> bool:
            left = first(lookup)
            for kind, term in steps:
                right = term(lookup)
                if kind in _ORDER and isinstance(left, str) is not isinstance(right, str):
                    raise Unknown(f"{left!r} and {right!r} cannot be compared")
                if not _COMPARE[kind](left, right):
                    return False
                left = right
            return True

        return compare

    def _members(self, node: ast.expr) -> _Term:
        if not isinstance(node, (ast.Tuple, ast.List)):
            raise self._refused(node, 'must be a list, as in state in ("open", "opening")')
        terms = [self.term(item) for item in node.elts]
        return lambda lookup: tuple(term(lookup) for term in terms)

    def _refused(self, node: ast.expr, why: str) -> ParameterError:
        part = ast.get_source_segment(self._text, node) or ast.unparse(node)
        return ParameterError(f"in the condition `{self._text}`, `{part}` {why}")


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        raise Unknown(f"the text {value!r} is neither true nor false")
    return bool(value)


def _number(value: Any) -> Any:
    if isinstance(value, str):
        raise Unknown(f"the text {value!r} is no number")
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, complex) or (isinstance(value, float) and math.isnan(value)):
        raise Unknown("the result is not a number")
    # An integer of so many digits is no measurement; as a float it overflows, which is told.
    return float(value) if isinstance(value, int) and value.bit_length() > 1000 else value


def _opposite_of(tree: ast.expr) -> str:
    match tree:
        case ast.Compare(ops=[sign]) if type(sign) in _OPPOSITE:
            return ast.unparse(ast.Compare(tree.left, [_OPPOSITE[type(sign)]()], tree.comparators))
        case ast.UnaryOp(op=ast.Not()):
            return ast.unparse(tree.operand)
    return f"not ({ast.unparse(tree)})"
