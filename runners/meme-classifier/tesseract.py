"""Tesseract, a system package, as a program of its own: no shell, one thread, killed when it takes too long."""

import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

#: The picture is one block of text, read by the neural recogniser alone.
MODE = ("--oem", "1", "--psm", "6")
#: A meme takes a third of a second.
TIMEOUT_SECONDS = 30.0


class TesseractMissing(Exception):
    """The program, or what it needs to read English, is not installed; the message says what to install."""


@dataclass(frozen=True)
class Word:
    """`line` orders words from top to bottom; `confidence` is 0 to 100."""

    text: str
    confidence: float
    line: tuple[int, int, int]
    height: int


@dataclass(frozen=True)
class Tesseract:
    program: Path

    @classmethod
    def find(cls) -> "Tesseract":
        """Raises TesseractMissing."""
        program = shutil.which("tesseract")
        if program is None:
            raise TesseractMissing(
                "Tesseract is not installed: install the system package tesseract-ocr "
                "(Debian, Ubuntu: apt-get install tesseract-ocr; macOS: brew install tesseract)"
            )
        found = cls(Path(program))
        if "eng" not in found._run(["--list-langs"], b"").split():
            raise TesseractMissing("Tesseract has no English: install the system package tesseract-ocr-eng")
        return found

    def words(self, picture: Image.Image) -> list[Word]:
        """What stands on a picture of dark text on a light ground."""
        file = io.BytesIO()
        picture.save(file, "PPM")
        table = self._run(["stdin", "stdout", "--dpi", "70", *MODE, "-c", "tessedit_create_tsv=1"], file.getvalue())
        return [word for line in table.splitlines()[1:] if (word := _word(line.split("\t"))) is not None]

    def _run(self, arguments: list[str], sent: bytes) -> str:
        try:
            ended = subprocess.run(
                [str(self.program), *arguments],
                input=sent,
                capture_output=True,
                timeout=TIMEOUT_SECONDS,
                # Several threads for one small picture only fight for the cores.
                env={"OMP_THREAD_LIMIT": "1", "PATH": str(self.program.parent)},
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"Tesseract took longer than {TIMEOUT_SECONDS:g} s for one picture") from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"Tesseract failed: {said[-1] if said else f'exit code {error.returncode}'}") from None
        return ended.stdout.decode(errors="replace")


def _word(columns: list[str]) -> Word | None:
    """One line of Tesseract's table, when it is of a word."""
    if len(columns) != 12 or columns[0] != "5" or not columns[11].strip():
        return None
    line = (int(columns[2]), int(columns[3]), int(columns[4]))
    return Word(columns[11].strip(), float(columns[10]), line, int(columns[9]))
