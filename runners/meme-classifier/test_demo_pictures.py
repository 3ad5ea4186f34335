"""The pictures of the demo, by the real pip, without the index."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from demo_pictures import BARRED, KNOWN, PACKAGE, TEMPLATES, pinned
from images import decode

HERE = Path(__file__).parent


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder where pip looks for packages."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    return folder


def stand_in(wheels: Path) -> None:
    """A package with templates that are plain grounds."""
    version = pinned(HERE / "requirements-training.txt").removeprefix(f"{PACKAGE}==")
    name = PACKAGE.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    jpeg = io.BytesIO()
    Image.new("RGB", (320, 200), "teal").save(jpeg, "JPEG")
    files: dict[str, bytes | str] = {f"{TEMPLATES}/{one}/default.jpg": jpeg.getvalue() for one in (*KNOWN, BARRED)}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\nRequires-Python: >=9\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheels / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


def made(folder: Path, wheels: Path) -> tuple[dict[str, bool], str]:
    """Picture → whether it is wrong on purpose; and what was printed."""
    environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-B", "demo_pictures.py", str(folder)]
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    samples = json.loads((folder / "samples.json").read_text())
    return {sample["payload"]["image_url"]: sample.get("fails", False) for sample in samples}, done.stdout


def test_only_drawn_pictures_are_shown_when_the_memes_cannot_be_had(tmp_path: Path, wheels: Path) -> None:
    found, said = made(tmp_path, wheels)
    assert set(found) == {"demo.png", "demo-with-bar.png", "half-a-file.jpg"}
    assert "without them only drawn pictures are shown" in said
    for name, is_wrong in found.items():
        content = (tmp_path / "pictures" / name).read_bytes()
        if is_wrong:
            with pytest.raises(ValueError, match="damaged or cut off"):
                decode(content)
        else:
            assert decode(content).width == 640


def test_memes_are_fetched_once_and_captioned(tmp_path: Path, wheels: Path) -> None:
    stand_in(wheels)
    found, said = made(tmp_path, wheels)
    assert {f"{name}.jpg" for name in (*KNOWN, BARRED)} <= set(found)
    assert "41 MB" in said
    barred = decode((tmp_path / "pictures" / f"{BARRED}.jpg").read_bytes())
    assert barred.size == (640, 470)
    assert min(barred.getpixel((600, 10))) > 250
    next(wheels.iterdir()).unlink()
    again, said = made(tmp_path, wheels)
    assert again == found
    assert said == ""
