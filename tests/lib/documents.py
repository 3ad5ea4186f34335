"""Reads the project's pages: fenced blocks, commands with the output they promise, headings, links.

A `sh` block is commands that succeed. A `console` block is commands after `$ `, each with the output it promises, where
`...` stands for anything. A block whose first line is a comment with a path, or that names a path beside its language,
is that file; `# path, below what is there` adds to it, `# path, instead of run_x` takes the place of that function and
what follows it. `<!-- not run: reason -->` before a block keeps it from being run; after `<!-- shown by: ./run.sh -->`
it is what that command shows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_FOREIGN = {"node_modules", "build", "dist"}
_FENCE = re.compile(r"^(\s*)```(.*)$")
_COMMENT = re.compile(r"^\s*<!--\s*(not run|shown by):\s*(.*?)\s*-->\s*$")
_FILE = re.compile(r"^# ([\w./-]+\.\w+)(, below what is there|, instead of \w+)?$")
_LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    info: str
    text: str
    not_run: str = ""
    shown_by: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def file(self) -> str:
        """The file that it is, or is a part of; else empty."""
        return self._file_and_part[0]

    @property
    def is_part(self) -> bool:
        """Of a file that another block begins."""
        return self._file_and_part[1] != ""

    def written_into(self, present: str) -> str:
        """The file's text once this block is in it; `present` is what it was."""
        part = self._file_and_part[1]
        if not part:
            return self.text
        added = self.text.partition("\n")[2]
        if part.startswith(", below"):
            return f"{present.rstrip()}\n\n\n{added}"
        function = part.removeprefix(", instead of ")
        before, found, _ = present.partition(f"def {function}(")
        assert found, f"{self.place}: there is no {function}"
        return before + added

    @property
    def _file_and_part(self) -> tuple[str, str]:
        if found := _FILE.match(self.text.partition("\n")[0]):
            return found[1], found[2] or ""
        return self.info.partition(" ")[2].strip(), ""


@dataclass(frozen=True)
class Command:
    """One command and what it promises to print; None: nothing is promised but success."""

    text: str
    output: str | None = None


def pages() -> list[Path]:
    """Every Markdown file of the project."""
    found = [path for path in ROOT.rglob("*.md") if not _is_foreign(path.relative_to(ROOT))]
    return sorted(found)


def blocks(page: Path) -> list[Block]:
    """Its fenced blocks, in order."""
    return list(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    remarks: dict[str, str] = {}
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if fence := _FENCE.match(line):
            indent, info = len(fence[1]), fence[2].strip()
            body = []
            for _, inner in lines:
                if inner.strip() == "```":
                    break
                body.append(inner[indent:])
            text = "\n".join(body) + "\n"
            yield Block(page, number, info, text, remarks.get("not run", ""), remarks.get("shown by", ""))
            remarks = {}
        elif comment := _COMMENT.match(line):
            remarks[comment[1]] = comment[2]
        elif line.strip():
            remarks = {}


def commands(block: Block) -> list[Command]:
    """Of a `sh` or `console` block."""
    if block.language == "sh":
        joined = block.text.replace("\\\n", "")
        lines = (_without_comment(line) for line in joined.splitlines())
        return [Command(line) for line in lines if line]
    found: list[Command] = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        length = next((n for n, line in enumerate(lines, 1) if not line.endswith("\\\n")), len(lines))
        command = "".join(lines[:length]).replace("\\\n", "").strip()
        found.append(Command(_without_comment(command), "".join(lines[length:]) or None))
    return found


def keeps_promise(promised: str, printed: str, *, whole: bool = True) -> bool:
    """Whether the output is what was promised, or has it in itself; `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in _trimmed(promised).split("..."))
    search = re.fullmatch if whole else re.search
    return search(pattern, _trimmed(printed), re.DOTALL) is not None


def headings(page: Path) -> set[str]:
    """Anchors of the page's headings."""
    inside = False
    found = set()
    for line in page.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside and line.startswith("#"):
            title = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            found.add(title.replace(" ", "-"))
    return found


def links(page: Path) -> list[str]:
    """Targets of its links and pictures, without those in fenced blocks."""
    text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", lambda code: "" if "](" in code[0] else code[0], text)
    return [first or second for first, second in _LINK.findall(text)]


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s+)#\s.*$", "", line).strip()


def _is_foreign(path: Path) -> bool:
    return any(part.startswith(".") or part in _FOREIGN for part in path.parts)
