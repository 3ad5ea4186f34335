"""What others wrote is shown on a terminal and never obeyed."""

import json
import sys
import unicodedata

from producer.printable import one_line, printable, printable_json

#: Every code point; in the planes between nothing is assigned, and the last two are for private use.
ALL = [chr(point) for point in range(sys.maxunicode + 1) if not 0x40000 <= point < 0xE0000 and point < 0xF1000]
#: Categories: controls, formats (direction, joiners, no width), halves of pairs, breaks of lines and paragraphs.
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_nothing_that_a_terminal_obeys_comes_through_and_nothing_is_lost() -> None:
    for start in range(0, len(ALL), 4096):
        chars = ALL[start : start + 4096]
        shown = printable("\0".join(chars), 100_000)
        assert not {unicodedata.category(one) for one in {*shown} - {"\n", "\t"}} & OBEYED
        assert all(shown.split(r"\x00")) or start == 0  # NUL itself is the first of all
        assert not {"\n", "\t"} & {*one_line("".join(chars), 100_000)}


def test_letters_pictures_and_spaces_stay_as_they_are() -> None:
    for text in ("straße, ça va\u00a0?", "日本語\u3000テスト", "✓ 👍 ❤️", "line\n\tline", "[b]no markup[/b]"):
        assert printable(text) == text
    assert printable("\x1b[31m\x9b1m\u202e\u200b\u2028\x7f\r") == r"\x1b[31m\x9b1m\u202e\u200b\u2028\x7f\r"
    assert printable("one\r\ntwo") == "one\ntwo"
    assert one_line("one\ntwo\tthree") == "one two three"
    assert printable("x" * 10, 5) == "xxxx…"


def test_json_for_people_is_the_same_json_for_programs() -> None:
    for start in range(0, len(ALL), 4096):
        value = {"".join(ALL[start : start + 4096]): ALL[start]}
        shown = printable_json(value)
        assert not any(unicodedata.category(char) in OBEYED for char in shown)
        # Python joins halves of pairs that stand side by side; all else is as it was.
        assert json.loads(shown) == json.loads(json.dumps(value))
    assert printable_json({"a": "ä", "b": [1]}) == '{"a": "ä", "b": [1]}'
    assert printable_json({"a": 1}, compact=True) == '{"a":1}'
