"""Reads a docstring: summary, description, ``Args:`` and one example call. Calls nothing."""

import ast
import doctest
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from pydantic_core import to_jsonable_python

from runnerlib.adapter.errors import did_you_mean
from runnerlib.adapter.model import MISSING, DocExample

_ARGS = re.compile(r"^(Args|Arguments|Parameters):\s*$")
_FIELD = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


@dataclass(frozen=True)
class Docs:
    """The parts of a docstring. `notes` has a sentence for each part that could not be used."""

    summary: str = ""
    description: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    example: DocExample | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Callee:
    """The function that an example calls.

    In the docstring of a batch handler, `batched` parameters are taken out of their lists, and an example may call
    `single`, the ``run_x`` beside it, as well.
    """

    name: str
    parameters: Sequence[str]
    provided: Sequence[str] = ()
    batched: Sequence[str] = ()
    single: str = ""


class _NotUsable(Exception):
    """Why an example is no payload; the message continues "its example "."""


def read_docs(docstring: str | None, callee: Callee, problems: list[str]) -> Docs:
    """Reads a docstring; adds to `problems` what a doctest run would stumble over."""
    text = inspect.cleandoc(docstring or "")
    try:
        parts = doctest.DocTestParser().parse(text)
    except ValueError as error:
        problems.append(f"{callee.name}(): its docstring has an example that doctest cannot read: {error}")
        parts = []
    prose = "".join(part for part in parts if isinstance(part, str))
    summary, _, rest = prose.strip().partition("\n")
    description, fields = _split_args(rest)
    notes = [
        f"{callee.name}(): its docstring describes '{name}', which is no parameter."
        + did_you_mean(name, callee.parameters)
        for name in fields
        if name not in callee.parameters and name not in callee.provided
    ]
    example = None
    try:
        example = _example([part for part in parts if isinstance(part, doctest.Example)], callee)
    except _NotUsable as error:
        notes.append(f"{callee.name}(): its example {error}")
    return Docs(summary.strip(), description, fields, example, tuple(notes))


def _split_args(text: str) -> tuple[str, dict[str, str]]:
    """The description without its ``Args:`` section, and that section's fields. Deeper lines continue a field."""
    kept: list[str] = []
    found: dict[str, str] = {}
    current, depth, inside = "", 0, False
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if _ARGS.match(line):
            inside, current, depth = True, "", 0
            continue
        inside = inside and (not line.strip() or indent > 0)
        if not inside:
            kept.append(line)
        elif line.strip():
            depth = depth or indent
            match = _FIELD.match(line)
            if match and indent <= depth:
                current = match[1]
                found[current] = match[2].strip()
            elif current:
                found[current] = f"{found[current]} {line.strip()}".strip()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), found


def _example(examples: Sequence[doctest.Example], callee: Callee) -> DocExample | None:
    """The first line that is just a call; else the first call inside a line, whose output is then not compared."""
    names = [name for name in (callee.name, callee.single) if name]
    inner: tuple[doctest.Example, ast.Call] | None = None
    calling = [one for one in examples if one.exc_msg is None]  # the others show how a call fails
    for one in calling:
        try:
            tree = ast.parse(one.source)
        except SyntaxError as error:
            raise _NotUsable(f"is not Python: {error.msg}") from None
        for name in names:
            whole = _whole_call(tree, name)
            if whole is not None:
                return _from_call(one, whole, callee, is_whole=True)
            if inner is None:
                inner = next(((one, call) for call in _calls(tree, name)), None)
    if inner is None and calling:
        raise _NotUsable(f"is not used, since it does not call {' or '.join(names)}")
    return None if inner is None else _from_call(*inner, callee, is_whole=False)


def _whole_call(tree: ast.Module, name: str) -> ast.Call | None:
    """``run_x(...)``, also as ``await run_x(...)`` or ``asyncio.run(run_x(...))``."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return None
    value = tree.body[0].value
    if isinstance(value, ast.Await):
        value = value.value
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "asyncio.run" and len(value.args) == 1:
        value = value.args[0]
    return value if _is_call(value, name) else None


def _calls(tree: ast.Module, name: str) -> Iterator[ast.Call]:
    for statement in tree.body:
        yield from (node for node in ast.walk(statement) if _is_call(node, name))


def _is_call(node: ast.AST, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _from_call(example: doctest.Example, call: ast.Call, callee: Callee, *, is_whole: bool) -> DocExample:
    payload = _payload(call, callee)
    want = example.want
    result = _wanted(want) if is_whole else MISSING
    if callee.batched and _is_call(call, callee.name):
        for name in callee.batched:
            members = payload.get(name)
            if not isinstance(members, list | tuple) or not members:
                raise _NotUsable(f"is not used, since '{name}' is not a list with something in it")
            payload[name] = members[0]
        if isinstance(result, list) and result:
            result = result[0]
            want = f"{result!r}\n"
        else:
            result, want, is_whole = MISSING, "", False
    try:
        payload = to_jsonable_python(payload)
    except ValueError as error:
        raise _NotUsable(f"is not used, since JSON cannot carry what it passes: {error}") from None
    return DocExample(payload, want, _jsonable(result), bool(example.options.get(doctest.SKIP)), is_whole)


def _payload(call: ast.Call, callee: Callee) -> dict[str, Any]:
    if len(call.args) > len(callee.parameters):
        raise _NotUsable(f"passes {len(call.args)} arguments by position, but only {len(callee.parameters)} are sent")
    given: dict[str, ast.expr] = dict(zip(callee.parameters, call.args, strict=False))
    for keyword in call.keywords:
        if keyword.arg is None:
            raise _NotUsable("passes **arguments; write each one out")
        given[keyword.arg] = keyword.value
    payload = {}
    for name, node in given.items():
        if name in callee.provided:
            continue
        try:
            payload[name] = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError):
            raise _NotUsable(
                f"is not used, since '{name}' is not a plain literal; write a value that JSON has, e.g. \"2024-01-31\""
            ) from None
    return payload


def _wanted(want: str) -> Any:
    """The value that the expected output spells; MISSING if it is no literal, or has `...` in it."""
    if not want.strip():
        return None
    if "..." in want:
        return MISSING
    try:
        return _literal(ast.parse(want.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError):
        return MISSING


def _literal(node: ast.expr) -> Any:
    """Like ast.literal_eval; ``Point(x=1)`` (a dataclass, named tuple or model) becomes a dict of its fields."""
    if isinstance(node, ast.Call) and not node.args and all(keyword.arg for keyword in node.keywords):
        return {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        members = [_literal(member) for member in node.elts]
        return members if isinstance(node, ast.List) else tuple(members)
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    return ast.literal_eval(node)


def _jsonable(value: Any) -> Any:
    try:
        return MISSING if value is MISSING else to_jsonable_python(value)
    except ValueError:
        return MISSING
