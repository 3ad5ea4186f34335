"""The table of text that was read."""

from tqdm import tqdm

from evaluate.captioned import Style, captioned
from evaluate.reading import Reading
from ocr import Reader, read_text
from training.splits import Splits

STYLES: tuple[Style, ...] = ("outlined", "white bar", "black bar")
SHOWN = 3


def ocr_table(splits: Splits, reader: Reader, count: int) -> None:
    """Words, fonts and pictures that nothing was tuned on."""
    print(f"\nText that was read: {count} pictures of each kind; words, fonts and pictures unseen")
    for style in STYLES:
        reading = Reading()
        by_font: dict[str, Reading] = {}
        for meme in tqdm(captioned(splits, "test", style, count), total=count, desc=style, unit="img", leave=False):
            read = read_text(meme.picture, reader.tesseract)
            reading.add(meme.text, read)
            by_font.setdefault(meme.font, Reading()).add(meme.text, read)
        print(f"  {style}")
        print(f"    {'characters (A–Z, 0–9, spaces)':40}{reading.character_share}")
        print(f"    {'characters as written':40}{reading.as_written_share}")
        print(f"    {'words':40}{reading.word_share}")
        print(f"    {'pictures without a mistake':40}{reading.exact_share}")
        fonts = ", ".join(f"{font} {one.character_share.value:.1%}" for font, one in sorted(by_font.items()))
        print(f"    characters by font: {fonts}")
        for expected, read in reading.failures[:SHOWN]:
            print(f"      {expected!r} was read as {read!r}")
