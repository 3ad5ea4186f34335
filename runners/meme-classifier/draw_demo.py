"""``python draw_demo.py``: draws `demo.png`, a picture in the manner of memes that belongs to nobody else.

It is drawn with plain shapes, so everybody may show it; to the classifier it is unknown, and OCR reads both captions.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE = (640, 480)
SKY, SEA, SHELL, INK = "#f6d9a8", "#7fb0a8", "#c9733b", "#2c2a29"


def draw() -> Image.Image:
    """A snail that carries a parcel along a beach, captioned."""
    picture = Image.new("RGB", SIZE, SKY)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 330, 640, 480), fill=SEA)
    pen.ellipse((470, 90, 570, 190), fill="#f2b84b")
    pen.rounded_rectangle((150, 300, 470, 350), 24, fill="#e3c08c", outline=INK, width=4)
    pen.line((450, 310, 480, 240), fill=INK, width=6)
    pen.line((430, 310, 440, 236), fill=INK, width=6)
    for left, top in ((472, 228), (432, 224)):
        pen.ellipse((left, top, left + 18, top + 18), fill="white", outline=INK, width=4)
    for inset in (0, 26, 52):
        pen.ellipse((180 + inset, 170 + inset, 350 - inset, 330 - inset), fill=SHELL, outline=INK, width=5)
    pen.rectangle((225, 110, 305, 172), fill="#b98a5a", outline=INK, width=4)
    pen.line((265, 110, 265, 172), fill=INK, width=4)
    caption(pen, "DELIVERS EVERY TASK", 12)
    caption(pen, "EVENTUALLY", 410)
    return picture


def caption(pen: ImageDraw.ImageDraw, text: str, top: int) -> None:
    """Centred, white with a black outline, in the font that Pillow brings."""
    font = ImageFont.load_default(52)
    left = (SIZE[0] - font.getlength(text)) / 2
    pen.text((left, top), text, font=font, fill="white", stroke_width=4, stroke_fill="black")


if __name__ == "__main__":
    draw().save(Path(__file__).with_name("demo.png"), optimize=True)
