"""Writes what is installed in an image, or in a folder such as a virtual environment, as a CycloneDX document.

python3 deploy/sbom.py plugplay-gateway > gateway.cdx.json

It reads the files of the image and runs nothing of it. The same files give the same document.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any
from urllib.parse import quote

#: What tells of packages: those of Python, those of Debian, and which Debian it is.
_WHEEL = re.compile(r"(?:.*/)?[^/]+\.dist-info/METADATA")
_DEBIAN = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/]+)")
_RELEASE = re.compile(r"(?:etc|usr/lib)/os-release")
#: Variables by which official images tell the version of what lies in /usr/local.
_RUNTIMES = {"PYTHON_VERSION": "python", "NODE_VERSION": "node"}

Files = Iterator[tuple[str, str]]
Component = dict[str, Any]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", metavar="IMAGE|FOLDER", help="the name of an image that Docker has, or a folder")
    what = parser.parse_args(words).what
    try:
        if Path(what).is_dir():
            found = document({"type": "application", "name": Path(what).resolve().name}, files_of_folder(Path(what)))
        else:
            found = of_image(what)
    except subprocess.CalledProcessError as error:
        print(f"Docker cannot do it: {error.stderr.decode(errors='replace').strip()}", file=sys.stderr)
        return 1
    except FileNotFoundError:
        print(f"{what} is no folder, and Docker, which may have such an image, was not found.", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=1, ensure_ascii=False))
    return 0


def of_image(name: str) -> dict[str, Any]:
    """The document of an image that Docker has. Raises CalledProcessError with what Docker said."""
    [image] = json.loads(_docker("image", "inspect", name))
    variables = dict(entry.partition("=")[::2] for entry in image["Config"]["Env"] or ())
    runtimes = [_component("generic", _RUNTIMES[key], variables[key]) for key in _RUNTIMES if key in variables]
    subject = {"type": "container", "name": name, "version": image["Id"]}
    with _exported(image["Id"]) as files:
        return document(subject, files, runtimes)


def document(subject: Component, files: Files, others: Iterable[Component] = ()) -> dict[str, Any]:
    """The CycloneDX document of what `files` tell of, and of `others`."""
    components, debian, release = list(others), [], "debian"
    for path, text in files:
        if _WHEEL.fullmatch(path):
            components.append(_python_package(Parser().parsestr(text, headersonly=True)))
        elif _DEBIAN.fullmatch(path):
            debian.append(text)
        elif name := re.search(r'^ID="?([a-z0-9._-]+)', text, re.MULTILINE):
            release = name[1]
    components += [package for text in debian for package in _system_packages(text, release)]
    ordered = [one for _, one in sorted({one["bom-ref"]: one for one in components}.items())]
    digest = hashlib.sha256(json.dumps([subject, ordered], sort_keys=True).encode()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {"component": {"bom-ref": "subject", **subject}},
        "components": ordered,
    }


def files_of_folder(folder: Path) -> Files:
    """The files that tell of packages, with paths relative to the folder."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if _tells(inside := path.relative_to(folder).as_posix()) and path.is_file():
                yield inside, path.read_text(encoding="utf-8", errors="replace")


@contextmanager
def _exported(image: str) -> Iterator[Files]:
    """The same of an image: of a container of it, which is not started."""
    container = _docker("create", "--network=none", image, "nothing").decode().strip()
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,  # noqa: S607
            tarfile.open(fileobj=export.stdout, mode="r|") as archive,
        ):
            yield _files_of_archive(archive)
    finally:
        _docker("rm", "--force", container)


def _files_of_archive(archive: tarfile.TarFile) -> Files:
    for member in archive:
        content = archive.extractfile(member) if member.isfile() and _tells(member.name) else None
        if content is not None:
            yield member.name, content.read().decode("utf-8", "replace")


def _tells(path: str) -> bool:
    return any(kind.fullmatch(path) for kind in (_WHEEL, _DEBIAN, _RELEASE))


def _python_package(metadata: Message) -> Component:
    name = re.sub(r"[-_.]+", "-", str(metadata["Name"])).lower()
    component = _component("pypi", name, str(metadata["Version"]))
    if expression := metadata["License-Expression"]:
        component["licenses"] = [{"expression": str(expression)}]
    elif text := str(metadata["License"] or "").strip():
        component["licenses"] = [{"license": {"name": text.splitlines()[0]}}]
    return component


def _system_packages(status: str, release: str) -> Iterator[Component]:
    for entry in status.strip().split("\n\n"):
        fields = Parser().parsestr(entry, headersonly=True)
        if "Package" in fields and str(fields["Status"] or "ok installed").endswith("ok installed"):
            architecture = f"?arch={quote(str(fields['Architecture']))}"
            yield _component(f"deb/{release}", str(fields["Package"]), str(fields["Version"]), architecture)


def _component(kind: str, name: str, version: str, qualifiers: str = "") -> Component:
    url = f"pkg:{kind}/{quote(name, safe='')}@{quote(version, safe='')}{qualifiers}"
    return {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def _docker(*words: str) -> bytes:
    return subprocess.run(["docker", *words], check=True, capture_output=True).stdout  # noqa: S607 - that on PATH


if __name__ == "__main__":
    sys.exit(main())
