"""Where modules come from: the standard library, then the adapter's folder, then what is installed.

An adapter's folder may hold any file, perhaps a ``queue.py``, which neither we nor any package must import instead of
the standard library's. So this module imports nothing that could be such a file.
"""

import os
import sys

#: Python options that keep the current folder off the path of our own processes (since Python 3.11).
SAFELY = ("-P",) if sys.version_info >= (3, 11) else ()


def put_current_folder_last() -> None:
    """Moves the current folder, which ``python -m`` puts first, to the end of the path, before other imports."""
    is_safe = getattr(sys.flags, "safe_path", False) or sys.flags.isolated
    if not is_safe and sys.path and sys.path[0] in ("", os.getcwd()):
        sys.path.append(sys.path.pop(0))


def put_behind(folder: str) -> None:
    """Puts `folder` directly after the standard library."""
    sys.path[:] = [one for one in sys.path if one != folder and (one or os.getcwd()) != folder]
    library = os.path.dirname(os.__file__)
    places = [at for at, one in enumerate(sys.path) if one in (library, os.path.join(library, "lib-dynload"))]
    sys.path.insert(max(places, default=-1) + 1, folder)


def hidden(folder: str) -> dict[str, str]:
    """Files and packages in `folder` that are never imported, and whose module of that name is imported instead.

    Call it before anything is imported from the folder.
    """
    found = {}
    for name in sorted(os.listdir(folder)):
        module, ending = os.path.splitext(name)
        is_package = os.path.isfile(os.path.join(folder, name, "__init__.py"))
        if ending == ".py" or (is_package and not ending):
            if module in sys.stdlib_module_names:
                found[name] = "the standard library"
            elif module in sys.modules and not _is_from(folder, module):
                found[name] = "the runner itself"
    return found


def _is_from(folder: str, module: str) -> bool:
    file = getattr(sys.modules[module], "__file__", None) or ""
    return os.path.realpath(file).startswith(os.path.realpath(folder) + os.sep)
