"""Every mistake an author can make is one sentence with names and advice."""

import sys
from pathlib import Path

import pytest

from runnerlib.adapter.errors import AdapterError
from runnerlib.adapter.loading import import_adapter

# source → the sentence (or its telling beginning)
MISTAKES = {
    "no hint": (
        "def run_ocr(image_url): ...",
        "run_ocr(): parameter 'image_url' has no type hint; add one, e.g. image_url: str",
    ),
    "no hint, but the runner has it": (
        "def run_ocr(task): ...",
        "run_ocr(): parameter 'task' has no type hint; add one, e.g. task: str; "
        "or move it right of a * if the runner should provide it: *, task",
    ),
    "*args": (
        "def run_x(*values: int): ...",
        "run_x(): *values has no fields to validate; name each parameter, or write a list[...]",
    ),
    "**kwargs": (
        "def run_x(**values: int): ...",
        "run_x(): **values has no fields to validate; name each parameter, or write a dict[...]",
    ),
    "positional-only": (
        "def run_x(a: int, /): ...",
        "run_x(): parameter 'a' is positional-only, but fields have names; remove the `/`",
    ),
    "misspelt provided name": (
        "def load_model(): ...\ndef run_x(a: int, *, modle): ...",
        "run_x(): nobody provides 'modle'. Did you mean 'model'? Provided are task, device, logger, metrics, fetch, "
        "model; write load_modle() to add it, or move it left of the * if callers send it",
    ),
    "misspelt provided name with a default": (
        "def run_x(a: int, *, taks=None): ...",
        "run_x(): nobody provides 'taks'. Did you mean 'task'?",
    ),
    "a provided name whose load is imported": (
        "from models import load_model\ndef run_x(a: int, *, model): ...",
        "run_x(): nobody provides 'model'; load_model is imported, and only what the adapter itself defines counts: "
        "write `def load_model(): ...` that calls it",
    ),
    "misspelt fetch": (
        "def run_x(a: int, *, fetsch): ...",
        "run_x(): nobody provides 'fetsch'. Did you mean 'fetch'?",
    ),
    "a type that JSON cannot carry": (
        "class Image: ...\ndef run_x(image: Image): ...",
        "run_x(): parameter 'image' has the hint Image, which JSON cannot carry (pydantic has no schema "
        "for <class 'runner_adapter.Image'>); use str, int, float, bool, lists and dicts, dataclasses, "
        "or pydantic models",
    ),
    "such a type deep inside": (
        "class Image: ...\ndef run_x(images: dict[str, list[Image]]): ...",
        "run_x(): parameter 'images' has the hint dict[str, list[Image]], which JSON cannot carry",
    ),
    "a function as a type": (
        "from typing import Callable\ndef run_x(f: Callable[[int], int]): ...",
        "run_x(): parameter 'f' has the hint Callable[[int], int], which JSON cannot carry",
    ),
    "a lazy type": (
        "from typing import Iterator\ndef run_x(values: Iterator[int]): ...",
        "run_x(): parameter 'values' has the hint Iterator[int], which is read lazily; write list[...] instead",
    ),
    "a hint that is a value": (
        "def run_x(a: 3): ...",
        "run_x(): parameter 'a' has the hint 3, which JSON cannot carry",
    ),
    "an unknown hint": (
        "from __future__ import annotations\ndef run_x(a: Imge): ...",
        "run_x(): parameter 'a' has the hint Imge, but Imge is not known at run time; "
        "import it, and not under `if TYPE_CHECKING:`",
    ),
    "a hint that is no Python": (
        "def run_x(a: 'list['): ...",
        "run_x(): parameter 'a' has the hint list[, which is no type",
    ),
    "None as the default of a str": (
        "def run_x(a: str = None): ...",
        "run_x(): parameter 'a' may be None, but its hint says str; write a: str | None = None",
    ),
    "a default of another type": (
        "def run_x(a: int = '3'): ...",
        "run_x(): the default of 'a', '3', does not fit its hint int (Input should be a valid integer); "
        "correct one of them",
    ),
    "a default out of bounds": (
        "from typing import Annotated\nfrom pydantic import Field\ndef run_x(a: Annotated[int, Field(ge=1)] = 0): ...",
        "run_x(): the default of 'a', 0, does not fit its hint",
    ),
    "Field as a default": (
        "from pydantic import Field\ndef run_x(a: int = Field(3, ge=1)): ...",
        "run_x(): parameter 'a' has Field(...) as its default, which a plain call would receive; "
        "write a: Annotated[int, Field(...)] = value",
    ),
    "a return hint that JSON cannot carry": (
        "class Image: ...\ndef run_x(a: int) -> Image: ...",
        "run_x(): the return value has the hint Image, which JSON cannot carry",
    ),
    "an unknown return hint": (
        "def run_x(a: int) -> 'Imge': ...",
        "run_x(): the return value has the hint Imge, but Imge is not known at run time",
    ),
    "a generator": (
        "def run_x(a: int):\n    yield a",
        "run_x(): it yields, but a task has one result; return a list instead",
    ),
    "an async generator": (
        "async def run_x(a: int):\n    yield a",
        "run_x(): it yields, but a task has one result; return a list instead",
    ),
    "capital letters": (
        "def run_Upper(text: str): ...",
        "run_Upper(): 'Upper' cannot be an algorithm's name; use lower-case letters, digits and _, at most 63, "
        "starting with a letter, e.g. run_upper",
    ),
    "no name": ("def run_(text: str): ...", "run_(): '' cannot be an algorithm's name"),
    "a name that starts with _": ("def run__x(a: int): ...", "run__x(): '_x' cannot be an algorithm's name"),
    "a name too long": (f"def run_{'a' * 64}(a: int): ...", f"run_{'a' * 64}(): '{'a' * 64}' cannot be an algorithm's"),
    "defined twice": (
        "def run_x(a: int): ...\n\ndef run_x(b: int): ...",
        "run_x() is defined more than once (lines 1 and 3); rename all but one",
    ),
    "no algorithm": (
        "def runtime_info(): ...",
        "runner_adapter.py has no algorithm; write one, e.g. def run_upper(text: str) -> str",
    ),
    "only imported algorithms": (
        "from models import run_x",
        "runner_adapter.py has no algorithm (run_x is imported, and only functions defined in the file itself count)",
    ),
    "a class": ("class run_x: ...", "run_x is a type, not a function; write def run_x(...)"),
    "a partial": (
        "import functools\nrun_x = functools.partial(print, 1)",
        "run_x is a partial, not a function; write def run_x(...)",
    ),
    "a decorator without wraps": (
        "from models import hides\n\n@hides\ndef run_x(a: int): ...",
        "run_x(): the decorator at line 4 hides the function; use functools.wraps in that decorator",
    ),
    "a load that is async": (
        "async def load_model(): ...\ndef run_x(a: int): ...",
        "load_model(): it is an async def, but things are loaded before any loop runs; write a plain def",
    ),
    "a load that asks for the task": (
        "def load_model(*, task): ...\ndef run_x(a: int): ...",
        "load_model(): there is no 'task' while things are loaded; ask for it in the run_* instead",
    ),
    "a load that asks for what nobody has": (
        "def load_model(devise): ...\ndef run_x(a: int): ...",
        "load_model(): nobody provides 'devise'. Did you mean 'device'? Provided are device, logger, metrics, fetch, "
        "model; write load_devise() to add it",
    ),
    "a load with *args": ("def load_model(*args): ...\ndef run_x(a: int): ...", "load_model(): *args has no fields"),
    "a load of a name that is taken": (
        "def load_task(): ...\ndef run_x(a: int): ...",
        "load_task(): 'task' is provided by the runner already; choose another name",
    ),
    "loads in a circle": (
        "def load_a(b): ...\ndef load_b(*, c): ...\ndef load_c(a): ...\ndef run_x(n: int, *, a): ...",
        "load_a() → load_b() → load_c() → load_a(): each needs the next, so none can be first; take one name out",
    ),
    "a load that needs itself": (
        "def load_a(a): ...\ndef run_x(n: int): ...",
        "load_a() → load_a(): each needs the next",
    ),
    "an example that does not fit": (
        'def run_x(a: int):\n    """X.\n\n    >>> run_x(a="1")\n    """',
        "run_x(): its docstring's example does not fit its hints: a: Input should be a valid integer; "
        "correct the example or the hint",
    ),
    "an example with a misspelt field": (
        'def run_x(a: int = 1):\n    """X.\n\n    >>> run_x(b=1)\n    """',
        "run_x(): its docstring's example does not fit its hints: b: Extra inputs are not permitted",
    ),
    "an example that doctest cannot read": (
        'def run_x(a: int):\n    """X.\n\n    >>>run_x(a=1)\n    """',
        "run_x(): its docstring has an example that doctest cannot read: line 3",
    ),
}

BATCH_MISTAKES = {
    "task in a batch": (
        "def batch_x(a: list[int], *, task) -> list[int]: ...",
        "batch_x(): a batch has many tasks, so there is no 'task'; leave it out here (run_* may ask for it)",
    ),
    "nothing batched": (
        "def batch_x(a: int) -> list[int]: ...",
        "batch_x(): no parameter is a list[...], so nothing is batched; write list[T] for those",
    ),
    "nothing batched beside run": (
        "def run_x(a: int): ...\ndef batch_x(a: int): ...",
        "batch_x(): no parameter is a list of what run_x takes, so nothing is batched",
    ),
    "other names": (
        "def run_x(a: int, b: str): ...\ndef batch_x(a: list[int], c: list[str]): ...",
        "batch_x(): its parameters must be called as those of run_x: it lacks 'b' and run_x has no 'c'",
    ),
    "another type": (
        "def run_x(a: int): ...\ndef batch_x(a: list[str]): ...",
        "batch_x(): parameter 'a' is list[str]; write list[int] to batch it, or int to share it",
    ),
    "another kind of list": (
        "from typing import Sequence\ndef run_x(a: int): ...\ndef batch_x(a: Sequence[int]): ...",
        "batch_x(): parameter 'a' is Sequence[int]; write list[int] to batch it, or int to share it",
    ),
    "a default of a batched parameter": (
        "def run_x(a: int = 1): ...\ndef batch_x(a: list[int] = [1]): ...",
        "batch_x(): 'a' is batched and needs no default; run_x has it",
    ),
    "a default of a batched parameter alone": (
        "def batch_x(a: list[int] = [1]): ...",
        "batch_x(): 'a' is batched and can have no default; write run_* for it",
    ),
    "another default of a shared one": (
        "def run_x(a: int, b: int = 1): ...\ndef batch_x(a: list[int], b: int = 2): ...",
        "batch_x(): the shared 'b' must have the same default as in run_x",
    ),
    "returns no list": (
        "def batch_x(a: list[int]) -> dict[str, int]: ...",
        "batch_x(): its return hint is dict[str, int]; a batch handler returns list[...], one entry for each task",
    ),
    "returns another list": (
        "def run_x(a: int) -> int: ...\ndef batch_x(a: list[int]) -> list[str]: ...",
        "batch_x(): it returns a list of str, but run_x returns int; write -> list[int]",
    ),
    "one async": (
        "def run_x(a: int): ...\nasync def batch_x(a: list[int]): ...",
        "batch_x(): one of it and run_x is an async def; make both so, or none",
    ),
    "unknown provided": ("def batch_x(a: list[int], *, modl): ...", "batch_x(): nobody provides 'modl'."),
}

BESIDE = """
import functools

def load_model(): ...
def run_x(a: int): ...
def hides(function):
    return lambda *values: function(*values)
"""


@pytest.mark.parametrize("name", MISTAKES | BATCH_MISTAKES)
def test_mistake_is_one_sentence_with_names_and_advice(name, problems_of):
    source, expected = (MISTAKES | BATCH_MISTAKES)[name]
    problems = problems_of(source, models=BESIDE)
    assert len(problems) == 1, problems
    assert problems[0].startswith(expected)
    assert "\n" not in problems[0]


def test_all_mistakes_are_told_at_once(problems_of):
    problems = problems_of(
        """
        OPTIONS = {"ocr": {"timeout": 3}}
        def run_ocr(image_url, *, modle): ...
        def run_Upper(text: str): ...
        def load_model(*, task): ...
        """
    )
    assert len(problems) == 5
    assert {problem.split("(")[0].split("[")[0] for problem in problems} == {
        "run_ocr",
        "run_Upper",
        "load_model",
        "OPTIONS",
    }


def test_imported_functions_are_no_algorithms_and_no_problem(adapter_of):
    adapter = adapter_of("from models import run_x\nfrom json import load\ndef run_y(a: int): ...", models=BESIDE)
    assert list(adapter.algorithms) == ["y"]


def test_decorator_with_wraps_is_seen_through(adapter_of):
    adapter = adapter_of(
        """
        import functools
        def twice(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs) * 2
            return wrapper

        @twice
        def run_x(a: int, *, device) -> int:
            return a

        @functools.lru_cache
        def load_model(): ...
        """
    )
    assert [p.name for p in adapter.algorithms["x"].parameters] == ["a"]
    assert adapter.algorithms["x"].handler(a=2, device="cpu") == 4
    assert list(adapter.resources) == ["model"]


BROKEN_IMPORTS = {
    "raises": (
        "a = 1\nb = a / 0",
        "runner_adapter.py cannot be imported: ZeroDivisionError: division by zero (runner_adapter.py, line 2)",
    ),
    "lacks a package": (
        "import no_such_package_xyz",
        "runner_adapter.py cannot be imported: ModuleNotFoundError: No module named 'no_such_package_xyz' "
        "(runner_adapter.py, line 1); add the package to requirements.txt and install it",
    ),
    "is no Python": ("def run_x(:\n    pass", "runner_adapter.py, line 1: "),
    "exits": (
        "import sys\nsys.exit(3)",
        "runner_adapter.py cannot be imported: SystemExit: 3 (runner_adapter.py, line 2); an adapter must not exit",
    ),
    "a module beside it raises": (
        "import broken",
        "runner_adapter.py cannot be imported: KeyError: 'x' (broken.py, line 2)",
    ),
}


@pytest.mark.parametrize("name", BROKEN_IMPORTS)
def test_module_that_cannot_be_imported_names_the_line(name, problems_of):
    source, expected = BROKEN_IMPORTS[name]
    (problem,) = problems_of(source, broken="\n{}['x']\n")
    assert problem.startswith(expected)
    assert "runner_adapter" not in sys.modules


def test_missing_file_is_told(tmp_path, load_problems):
    assert load_problems(tmp_path) == [
        f"there is no {tmp_path / 'runner_adapter.py'}; write one, or name it with --path or RUNNER_ADAPTER"
    ]
    (tmp_path / "my-adapter.py").write_text("")
    assert load_problems(tmp_path / "my-adapter.py") == [
        "my-adapter.py is not a Python module; call it runner_adapter.py"
    ]


@pytest.fixture
def load_problems():
    from runnerlib.adapter.errors import AdapterError
    from runnerlib.adapter.loading import load_adapter

    def problems(path):
        with pytest.raises(AdapterError) as caught:
            load_adapter(path)
        return caught.value.problems

    return problems


MISCHIEF = """
import enum, dataclasses, sys
from typing import Annotated, Any
from pydantic import AfterValidator, AliasChoices, BaseModel, Field
def explode(value=None): raise KeyError("boom")
def leave(value=None): sys.exit("gone")
@dataclasses.dataclass
class Bad:
    x: int = 0
    def __post_init__(self):
        if self.x: explode()
class Hidden:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler): leave()
class Interrupting:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler): raise KeyboardInterrupt
class Stubborn(BaseModel):
    x: int = 0
    def __deepcopy__(self, memo=None): raise RuntimeError("one of a kind")
class Unreadable:
    def __repr__(self): raise KeyError("no")
class Odd(BaseModel):
    x: int = Field(0, examples=[float("nan")])
"""


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "def run_x(a: Annotated[int, AfterValidator(explode)] = 1): ...",
            "run_x(): parameter 'a': its hint int, given its default, raised KeyError: 'boom'",
        ),
        (
            "def run_x(a: Annotated[int, AfterValidator(leave)] = 1): ...",
            "run_x(): parameter 'a': its hint int, given its default, raised SystemExit: gone",
        ),
        (
            "def run_x(a: Stubborn = Stubborn()): ...",
            "run_x(): parameter 'a': its hint Stubborn, given its default, raised RuntimeError: one of a kind",
        ),
        ("def run_x(a: Interrupting): ...", "run_x(): its signature raised KeyboardInterrupt"),
        ("def run_x(a: Hidden): ...", "run_x(): its signature raised SystemExit: gone"),
        (
            "def run_x(a: '1 / 0'): ...",
            "run_x(): parameter 'a' has the hint 1 / 0, which is no type (division by zero)",
        ),
        (
            "def run_x(a: int = Unreadable()): ...",
            "run_x(): the default of 'a', <Unreadable>, does not fit its hint int",
        ),
        (
            'def run_x(b: Bad):\n    """X.\n\n    >>> run_x({"x": 1})\n    """',
            "run_x(): its docstring's example, read as a payload, raised KeyError: 'boom'",
        ),
        (
            'def run_x(a: float):\n    """X.\n\n    >>> run_x(1e999)\n    """',
            "run_x(): its docstring's example cannot be sent as JSON: Out of range float values",
        ),
        ("def run_x(a: Odd): ...", "run_x(): the JSON Schema of its parameters cannot be written as JSON"),
        ("def run_x() -> Odd: ...", "run_x(): the JSON Schema of its return value cannot be written as JSON"),
        (
            "def run_x(a: Annotated[int, Field(validation_alias=AliasChoices('b', 'c'))]): ...",
            "run_x(): parameter 'a' has a AliasChoices as its alias, but a field has one name; write Field(alias=",
        ),
        (
            "def run_x(a: Annotated[int, Field(alias='b')], b: int): ...",
            "run_x(): callers would send both 'a' and 'b' as 'b'; give one of them another alias",
        ),
        ("class Quit(BaseException): ...\nraise Quit('bye')", "runner_adapter.py cannot be imported: Quit: bye"),
    ],
)
def test_whatever_types_do_at_the_start_is_a_sentence(source, sentence, problems_of):
    assert any(problem.startswith(sentence) for problem in problems_of(MISCHIEF + source)), problems_of(
        MISCHIEF + source
    )


def test_a_syntax_error_shows_the_line_and_where_python_stumbled(problems_of):
    (problem,) = problems_of("def run_x(a: int) -> int:\n    if True:\n        return a +* 2\n")
    first, *shown = problem.splitlines()
    assert first.startswith("runner_adapter.py, line 3: ")
    assert shown == ["    return a +* 2", "              ^"]


def test_a_syntax_error_of_a_file_beside_the_adapter_is_shown_too(problems_of):
    (problem,) = problems_of("import beside\ndef run_x(): ...\n", beside="def f(:\n    pass\n")
    assert problem.splitlines()[0].startswith("beside.py, line 1: ")
    assert problem.splitlines()[1:] == ["    def f(:", "          ^"]


def test_a_required_package_that_this_python_lacks_is_not_to_be_added_again(tmp_path: Path) -> None:
    (tmp_path / "runner_adapter.py").write_text("import no_such_package_xyz")
    (tmp_path / "requirements.txt").write_text(
        "# what for\n-r base.txt\npydantic\nno-such-package-xyz[all]==1.0  # pinned\nold-one; python_version < '3'\n"
    )
    with pytest.raises(AdapterError) as error:
        import_adapter(tmp_path / "runner_adapter.py")
    assert str(error.value).endswith(
        "; no-such-package-xyz is in requirements.txt but not installed in this Python; "
        f"use the runner's own: worker check {tmp_path.name}"
    )
