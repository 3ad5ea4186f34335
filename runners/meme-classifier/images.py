"""Pictures from strangers: decoded within limits, or refused in a sentence.

Sizes are read from the header and checked before a pixel is decoded, since a file of a few KB can decode to gigabytes.
"""

import io
import struct
import warnings
import zlib

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

#: What may be decoded. Pillow knows fifty more, some of them through other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
#: How files of the common ones begin.
_PNG = b"\x89PNG\r\n\x1a\n"
_BEGINNINGS = (_PNG, b"\xff\xd8\xff", b"GIF8")
#: Parts of a PNG that need not be there and still count: what is transparent, how the camera was held.
_KEPT_PARTS = (b"tRNS", b"eXIf")
MAX_PIXELS = 50_000_000
#: Beyond this an edge is no picture's, and decoders reserve memory by the row.
MAX_EDGE = 30_000
#: What shines through where a picture is transparent: viewers show most memes on white.
BACKGROUND = (255, 255, 255)
#: How a camera was held, as EXIF tells it → what makes the picture upright again.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class NotAPicture(ValueError):
    """What was sent is no picture, a broken one, or too large; the message says which, to whoever sent it."""


def decode(content: bytes, *, enough: int | None = None) -> Image.Image:
    """The picture as it is shown: upright, in RGB, the first one of an animation.

    `enough`: JPEGs may be decoded at 1/2, 1/4 or 1/8 of their size, as long as no edge gets shorter than this many
    pixels; a camera's picture then needs a fraction of the time and memory.
    Raises NotAPicture.
    """
    if not content:
        raise NotAPicture("the image is empty (0 bytes); send the file itself")
    try:
        return _decoded(content, enough)
    except NotAPicture:
        # Its metadata may be more than Pillow takes, or damaged; viewers show it all the same.
        bare = _without_metadata(content)
        if len(bare) == len(content):
            raise
    return _decoded(bare, enough)


def _decoded(content: bytes, enough: int | None) -> Image.Image:
    picture = _opened(content)
    _check_size(picture)
    if enough is not None:
        picture.draft("RGB", (enough, enough))
    try:
        if picture.format == "PNG":
            _check_sums(content)
        picture.load()
        turn = _turn(picture)
        return _as_rgb(picture if turn is None else picture.transpose(turn))
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, Image.DecompressionBombError) as error:
        raise NotAPicture(f"the {picture.format} image is damaged or cut off ({error}); send it whole") from error


def _opened(content: bytes) -> ImageFile.ImageFile:
    """Header read, nothing decoded yet."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; here they are refused or accepted, and the log needs neither.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        if content.startswith(_BEGINNINGS):
            raise NotAPicture("the image's header is damaged; send another file") from None
        raise NotAPicture(f"this is {_guess(content)}, not an image; send {_named(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise NotAPicture(
            f"the image has far more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise NotAPicture(f"the image's header is damaged ({error}); send another file") from error


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise NotAPicture(f"the image has {width} × {height} pixels; send one that shows something")
    if width * height > MAX_PIXELS or max(width, height) > MAX_EDGE:
        raise NotAPicture(
            f"the image has {width} × {height} pixels; at most {MAX_PIXELS // 1_000_000} million are taken, "
            f"and at most {MAX_EDGE} along an edge; make it smaller"
        )


def _check_sums(content: bytes) -> None:
    """A PNG brings a checksum for each of its parts; Pillow decodes the picture itself without looking at them."""
    with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
        picture.verify()


def _without_metadata(content: bytes) -> bytes:
    """A PNG's parts that are needed to show it, and how a camera was held; anything else as it is."""
    if not content.startswith(_PNG):
        return content
    parts, start = [_PNG], len(_PNG)
    while start + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 12 + length
        if end > len(content):
            break
        # What begins with a capital letter cannot be left out.
        is_whole = zlib.crc32(content[start + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")
        if kind[:1].isupper() or (kind in _KEPT_PARTS and is_whole):
            parts.append(content[start:end])
        start = end
    parts.append(content[start:])
    return b"".join(parts)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What makes it upright. Pillow's exif_transpose also writes all other tags anew, and fails at odd ones."""
    try:
        return _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        # Damaged tags hide nothing of the picture: viewers show it as it lies.
        return None


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16") or picture.mode == "I":
        # 16 bits a pixel: Pillow's own conversion would cut everything above 255 off.
        picture = picture.convert("I").point(lambda level: level / 256).convert("L")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    shown = Image.new("RGB", picture.size, BACKGROUND)
    shown.paste(layer, mask=layer.getchannel("A"))
    return shown


def _guess(content: bytes) -> str:
    """What it is instead, as far as its beginning tells."""
    start = content[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page"
    if start.startswith((b"<svg", b"<?xml")):
        return "an SVG or XML document"
    if start.startswith(b"%pdf"):
        return "a PDF document"
    if start.startswith((b"{", b"[")):
        return "JSON or other text"
    if content[4:12] in (b"ftypavif", b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "an AVIF or HEIC picture"
    return "something else"


def _named(formats: tuple[str, ...]) -> str:
    return ", ".join(formats[:-1]) + f" or {formats[-1]}"
