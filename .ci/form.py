"""Prints the size and shape of each package, and fails beyond the hard limits of CONTRIBUTING.md."""

import ast
import statistics
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

MAX_MODULE_LINES = 450
MAX_FUNCTION_LINES = 40
SMALL_LINES = 60
#: These belong to no chain: everything may import them.
LEAVES = {"__init__", "errors"}

Modules = dict[str, Path]
Imports = dict[str, set[str]]


def modules_of(package: Path) -> Modules:
    """Dotted name → file."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        *parents, last = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parents if last == "__init__" else [*parents, last])] = path
    return found


def imports_of(tree: ast.AST, modules: Mapping[str, Path]) -> Iterator[str]:
    """Modules of the same package that a module imports at run time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield from (each for each in (name if name in modules else node.module,) if each in modules)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)


def longest_chain(imports: Imports, leaves: set[str]) -> list[str]:
    """The longest path along imports. Raises ValueError at a cycle."""
    open_ones: list[str] = []

    @cache
    def chain(name: str) -> tuple[str, ...]:
        if name in open_ones:
            raise ValueError(" > ".join([*open_ones[open_ones.index(name) :], name]))
        open_ones.append(name)
        below = max((chain(each) for each in imports[name] - leaves), key=len, default=())
        open_ones.pop()
        return (name, *below)

    return list(max((chain(name) for name in imports), key=len))


def look_at(package: Path) -> list[str]:
    """Prints the line of a package; returns what is beyond the limits."""
    modules, beyond = modules_of(package), []
    trees = {name: ast.parse(path.read_text()) for name, path in modules.items()}
    lines = {name: len(path.read_text().splitlines()) for name, path in modules.items()}
    beyond += [f"{name} has {count} lines" for name, count in lines.items() if count > MAX_MODULE_LINES]
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                beyond.append(f"{name}:{node.lineno} has a global")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > MAX_FUNCTION_LINES:
                    beyond.append(f"{name}.{node.name} has {count} lines")
    imports = {name: set(imports_of(tree, modules)) - {name} for name, tree in trees.items()}
    leaves = {name for name, path in modules.items() if path.stem in LEAVES}
    depth = 0
    try:
        depth = len(longest_chain(imports, leaves))
    except ValueError as cycle:
        beyond.append(f"imports in a circle: {cycle}")
    counts = sorted(lines.values())
    small = sum(count <= SMALL_LINES for count in counts) / len(counts)
    print(
        f"{package.name:17}{len(counts):8}{sum(counts):8}{statistics.median(counts):8.0f}"
        f"{counts[int(0.9 * len(counts))]:8}{counts[-1]:9}{small:11.0%}{depth:8}"
    )
    return beyond


def main() -> int:
    print(f"{'package':17}{'modules':>8}{'lines':>8}{'median':>8}{'p90':>8}{'largest':>9}{'<= 60':>11}{'chain':>8}")
    root = Path(__file__).parent.parent
    beyond = [each for package in sorted(root.glob("*/src/*/__init__.py")) for each in look_at(package.parent)]
    for each in beyond:
        print(f"beyond the limits: {each}")
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
