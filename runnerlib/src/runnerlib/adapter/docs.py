"""What a docstring says: summary, description, ``Args:`` and one example call."""

import ast
import doctest
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from pydantic_core import to_jsonable_python

from runnerlib.adapter.errors import did_you_mean
from runnerlib.adapter.model import MISSING, DocExample

_ARGS = re.compile(r"^(Args|Arguments|Parameters):\s*$")
_SECTION = re.compile(r"^[A-Z][A-Za-z ]*:\s*$")
_FIELD = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


@dataclass(frozen=True)
class Docs:
    """A docstring in parts. `notes` is what could not be used, in sentences."""

    summary: str = ""
    description: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    example: DocExample | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Callee:
    """The function an example calls.

    `batched` are taken out of their lists when the docstring is a batched twin's; `single` is the ``run_x`` beside it,
    which an example there may call as well.
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
    described, fields = _split_args(rest)
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
    return Docs(summary.strip(), described, fields, example, tuple(notes))


def _split_args(text: str) -> tuple[str, dict[str, str]]:
    """The description without its ``Args:`` section, and that section's fields. Deeper lines continue a field."""
    kept: list[str] = []
    found: dict[str, str] = {}
    current, depth, inside = "", 0, False
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if _ARGS.match(line):
            inside, current, depth = True, "", 0
        elif inside and line.strip() and indent == 0:
            inside = False
            kept.append(line)
        elif not inside:
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
    """The first line that is just a call; else the first call inside a line, whose output then is not compared."""
    names = [name for name in (callee.name, callee.single) if name]
    inner: tuple[doctest.Example, ast.Call] | None = None
    calling = [one for one in examples if one.exc_msg is None]  # the others show how a call fails
    for one in calling:
        statements = _parse(one.source)
        for name in names:
            whole = _whole_call(statements, name)
            if whole is not None:
                return _from_call(one, whole, callee, is_whole=True)
            if inner is None:
                inner = next(((one, call) for call in _calls(statements, name)), None)
    if inner is None and calling:
        raise _NotUsable(f"is not used, since it does not call {' or '.join(names)}")
    return None if inner is None else _from_call(*inner, callee, is_whole=False)


def _parse(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        raise _NotUsable(f"is not Python: {error.msg}") from None


def _whole_call(statements: list[ast.stmt], name: str) -> ast.Call | None:
    """``run_x(...)``, also as ``await run_x(...)`` or ``asyncio.run(run_x(...))``."""
    if len(statements) != 1 or not isinstance(statements[0], ast.Expr):
        return None
    value = statements[0].value
    if isinstance(value, ast.Await):
        value = value.value
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "asyncio.run" and len(value.args) == 1:
        value = value.args[0]
    return value if _is_call(value, name) else None


def _calls(statements: Iterable[ast.stmt], name: str) -> Iterator[ast.Call]:
    for statement in statements:
        for node in ast.walk(statement):
            if _is_call(node, name):
                yield node


def _is_call(node: ast.AST, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _from_call(example: doctest.Example, call: ast.Call, callee: Callee, *, is_whole: bool) -> DocExample:
    payload = _payload(call, callee)
    want = example.want
    result = _wanted(want) if is_whole else MISSING
    if callee.batched and _is_call(call, callee.name):
        payload, result, want, is_whole = _first_of_batch(payload, result, callee, is_whole)
    skip = bool(example.options.get(doctest.SKIP))
    try:
        payload = to_jsonable_python(payload)
    except ValueError as error:
        raise _NotUsable(f"is not used, since JSON cannot carry what it passes: {error}") from None
    return DocExample(payload, want, _jsonable(result), skip, is_whole)


def _payload(call: ast.Call, callee: Callee) -> dict[str, Any]:
    given: dict[str, ast.expr] = {}
    if len(call.args) > len(callee.parameters):
        raise _NotUsable(f"passes {len(call.args)} arguments by position, but only {len(callee.parameters)} are sent")
    given.update(zip(callee.parameters, call.args, strict=False))
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


def _first_of_batch(
    payload: dict[str, Any], result: Any, callee: Callee, is_whole: bool
) -> tuple[dict[str, Any], Any, str, bool]:
    """From ``batch_x(["a", "b"])`` and its list to one task's payload and result."""
    for name in callee.batched:
        members = payload.get(name)
        if not isinstance(members, list | tuple) or not members:
            raise _NotUsable(f"is not used, since '{name}' is not a list with something in it")
        payload = {**payload, name: members[0]}
    if not isinstance(result, list) or not result:
        return payload, MISSING, "", False
    return payload, result[0], f"{result[0]!r}\n", is_whole


def _wanted(want: str) -> Any:
    """The value that the expected text spells; MISSING when it is no literal, or has `...` in it."""
    if not want.strip():
        return None
    if "..." in want:
        return MISSING
    try:
        return _literal(ast.parse(want.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError):
        return MISSING


def _literal(node: ast.expr) -> Any:
    """Like ast.literal_eval; what prints as ``Point(x=1)`` (dataclass, named tuple, model) becomes its fields."""
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
