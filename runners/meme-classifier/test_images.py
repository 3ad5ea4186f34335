"""What strangers send: pictures of all sorts, and what is none."""

import io
import struct
import tracemalloc
import zlib

import pytest
from PIL import Image, ImageSequence

from images import MAX_EDGE, MAX_PIXELS, NotAPicture, decode


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_accepted_formats_are_decoded(form, encode, gradient) -> None:
    picture = decode(encode(gradient, form))
    assert (picture.mode, picture.size) == ("RGB", gradient.size)
    red, _, blue = picture.getpixel((160, 230))
    assert abs(red - 244) < 24 and abs(blue - 90) < 40


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_all_modes_become_rgb_and_look_the_same(mode, encode, gradient) -> None:
    picture = decode(encode(gradient.convert(mode)))
    assert picture.mode == "RGB"
    shown, sent = (
        one.convert("L").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)) for one in (picture, gradient)
    )
    assert shown == pytest.approx(sent, abs=4)


def test_sixteen_bits_keep_their_shades(encode) -> None:
    sent = Image.new("I;16", (8, 8), 32768)
    assert decode(encode(sent)).getpixel((4, 4)) == pytest.approx((128,) * 3, abs=1)


def test_cmyk_jpeg_is_decoded(encode, gradient) -> None:
    assert decode(encode(gradient.convert("CMYK"), "JPEG")).mode == "RGB"


def test_transparent_parts_are_white(encode) -> None:
    assert decode(encode(Image.new("RGBA", (8, 8), (200, 0, 0, 0)))).getpixel((4, 4)) == (255, 255, 255)


def test_transparent_colour_of_a_palette_is_white(encode) -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(encode(picture, "GIF", transparency=1)).getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_first_picture_of_an_animation_counts(form, encode) -> None:
    first, second = Image.new("RGB", (32, 32), (250, 0, 0)), Image.new("RGB", (32, 32), (0, 0, 250))
    sent = encode(first, form, save_all=True, append_images=[second])
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(sent))))) == 2
    red, _, blue = decode(sent).getpixel((16, 16))
    assert red > 200 and blue < 50


def test_picture_is_turned_upright_as_its_camera_says(encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    sent = Image.new("RGB", (40, 20), "black")
    sent.paste("white", (0, 0, 20, 20))
    picture = decode(encode(sent, "JPEG", exif=exif))
    assert picture.size == (20, 40)
    assert picture.getpixel((10, 5))[0] > 200 > 50 > picture.getpixel((10, 35))[0]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_odd_tags_of_a_camera_neither_hide_the_picture_nor_how_it_was_held(form, encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0
    whole = exif.tobytes()
    odd = whole.replace(struct.pack(">HH", 0x011A, 5), struct.pack(">HH", 0x011A, 7))  # no fraction, but raw bytes
    assert odd != whole
    assert decode(encode(Image.new("RGB", (40, 20)), form, exif=odd)).size == (20, 40)


def test_damaged_tags_of_a_camera_do_not_hide_the_picture(encode) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"
    assert decode(encode(Image.new("RGB", (40, 20)), "JPEG", exif=exif)).size == (40, 20)


def test_large_jpeg_is_decoded_at_a_fraction_of_its_size(encode) -> None:
    sent = encode(Image.new("RGB", (4000, 2000), "grey"), "JPEG")
    picture = decode(sent, enough=448)
    assert 448 <= min(picture.size) < 2000
    assert picture.width == 2 * picture.height


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_file_is_refused(form, share, encode, gradient) -> None:
    sent = encode(gradient, form)
    with pytest.raises(NotAPicture, match=r"damaged|cut off|not an image"):
        decode(sent[: int(len(sent) * share)])


def test_damage_in_the_middle_of_a_png_is_noticed(encode, gradient) -> None:
    sent = encode(gradient)
    for place in range(60, len(sent) - 20, 97):
        damaged = bytearray(sent)
        damaged[place] ^= 1
        with pytest.raises(NotAPicture, match="damaged"):
            decode(bytes(damaged))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "an HTML page, not an image; send JPEG, PNG"),
        (b"\n  <html>", "an HTML page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG or XML document"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b'{"error": "no"}', "JSON"),
        (b"\x00" * 1000, "something else"),
        (b"\xff\xd8\xff", "header is damaged"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(content, said) -> None:
    with pytest.raises(NotAPicture, match=said):
        decode(content)


@pytest.mark.parametrize("form", ["TIFF", "ICO", "PPM", "TGA", "EPS", "PDF", "JPEG2000"])
def test_other_formats_are_refused(form, encode, gradient) -> None:
    with pytest.raises(NotAPicture, match="not an image; send JPEG, PNG, WEBP, GIF or BMP"):
        decode(encode(gradient.resize((64, 64)), form))


def chunk(kind: bytes, data: bytes, damage: int = 0) -> bytes:
    """One part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ damage)


def png(width: int, height: int, rows: int) -> bytes:
    """A PNG that says it has so many pixels and brings so many rows of zeros, well packed."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packed = zlib.compress(bytes((width // 8 + 1) * rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 10_000), (100_000, 100_000), (MAX_EDGE + 1, 8), (2**31 - 1, 1)])
def test_bomb_is_refused_before_it_is_decoded(size) -> None:
    sent = png(*size, rows=8) if size[0] > 10_000 else png(*size, rows=size[1])
    tracemalloc.start()
    with pytest.raises(NotAPicture, match=r"pixels|damaged"):
        decode(sent)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 1024 * 1024


def test_bomb_of_twelve_kilobytes_is_as_small_as_it_says() -> None:
    sent = png(10_000, 10_000, rows=10_000)
    assert len(sent) < 16_000
    assert MAX_PIXELS < 10_000 * 10_000
    with pytest.raises(NotAPicture, match="10000 × 10000 pixels; at most 50 million"):
        decode(sent)


def test_gif_whose_frame_is_larger_than_its_screen_is_bounded(encode) -> None:
    sent = bytearray(encode(Image.new("P", (16, 16)), "GIF"))
    place = sent.index(b"\x2c") + 5
    sent[place : place + 4] = struct.pack("<HH", 65_000, 65_000)
    with pytest.raises(NotAPicture, match=r"pixels|damaged|header"):
        decode(bytes(sent))


def test_a_picture_with_a_damaged_header_is_called_a_picture(encode, gradient) -> None:
    content = bytearray(encode(gradient, "PNG"))
    content[20] ^= 1
    with pytest.raises(NotAPicture, match="header is damaged"):
        decode(bytes(content))


LARGE = zlib.compress(bytes(3_000_000), 9)
METADATA = {
    "zTXt": chunk(b"zTXt", b"comment\0\0" + LARGE),
    "iTXt": chunk(b"iTXt", b"comment\0\1\0\0\0" + LARGE),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + LARGE),
    "many small": 3_000 * chunk(b"tEXt", b"comment\0" + bytes(1000)),
    "a wrong sum": chunk(b"tEXt", b"comment\0hello", damage=1),
    "a wrong sum of an unknown part": chunk(b"abCd", b"hello", damage=1),
    "no separator": chunk(b"zTXt", b"comment"),
}


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("metadata", METADATA)
def test_large_or_damaged_metadata_does_not_hide_a_png(metadata, where, encode, gradient) -> None:
    shown = gradient.copy()
    shown.putalpha(gradient.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6
    sent = encode(shown, exif=exif)
    place = 33 if where == "first" else len(sent) - 12
    tracemalloc.start()
    picture = decode(sent[:place] + METADATA[metadata] + sent[place:])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert picture.tobytes() == decode(sent).tobytes()
    assert most < 24 * 1024 * 1024


def test_damage_beside_large_metadata_is_noticed(encode, gradient) -> None:
    sent = encode(gradient)
    damaged = bytearray(sent[:33] + METADATA["zTXt"] + sent[33:])
    damaged[-40] ^= 1
    with pytest.raises(NotAPicture, match="damaged"):
        decode(bytes(damaged))


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF"])
def test_large_metadata_does_not_hide_other_pictures(form, encode, gradient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encode(gradient, form)
    more = {
        "JPEG": {"icc_profile": bytes(3_000_000), "comment": bytes(60_000)},
        "WEBP": {"icc_profile": bytes(3_000_000), "xmp": bytes(3_000_000)},
        "GIF": {"comment": bytes(3_000_000)},
    }[form]
    assert decode(encode(gradient, form, **more)).tobytes() == decode(plain).tobytes()


def test_tags_of_a_jpeg_that_are_repeated_hundreds_of_times_do_not_hide_it(encode, gradient) -> None:
    sent = encode(gradient, "JPEG")
    for kind in (b"\xff\xe1", b"\xff\xe2", b"\xff\xed", b"\xff\xfe"):
        part = kind + struct.pack(">H", 65_000) + b"Exif\0\0" + bytes(65_000 - 8)
        assert decode(sent[:2] + 50 * part + sent[2:]).size == gradient.size
