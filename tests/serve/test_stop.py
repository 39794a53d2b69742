import itertools

from hypothesis import given
from hypothesis import strategies as st

from sharpen.serve.stop import StopText, TextStream
from small_models import byte_tokenizer


def pieces(text, cuts):
    places = sorted({c % (len(text) + 1) for c in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


@given(
    text=st.text("ab", max_size=30),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 60)),
)
def test_stop_texts_are_found_wherever_the_text_is_cut(text, stops, cuts):
    finder, shown, stopped = StopText(stops), "", False
    for piece in pieces(text, cuts):
        ready, stopped = finder.push(piece)
        shown += ready
        assert text.startswith(shown)
        if stopped:
            break
    if not stopped:
        shown += finder.finish()
    found = any(stop in text for stop in stops)
    assert stopped == found
    if not found:
        assert shown == text
    else:
        assert not any(stop in shown for stop in stops)
        assert any(text[len(shown) :].startswith(stop) for stop in stops)


def test_nothing_is_shown_that_may_begin_a_stop_text():
    finder = StopText(["STOP"])
    assert finder.push("so ST") == ("so ", False)
    assert finder.push("O") == ("", False)
    assert finder.push("ne") == ("STOne", False)
    assert finder.push("ST") == ("", False)
    assert finder.push("OP and more") == ("", True)


def test_characters_come_whole():
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer)
    shown = [stream.push(token)[0] for token in tokenizer.encode("né🙂")]
    assert shown == ["n", "", "é", "", "", "", "🙂"]
    assert stream.finish() == ("", False)


def test_a_half_character_at_the_end_is_replaced():
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer)
    stream.push(tokenizer.encode("é")[0])
    assert stream.finish() == ("\ufffd", False)


def test_a_stop_text_may_be_completed_at_the_very_end():
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer, ["\ufffd"])
    stream.push(tokenizer.encode("é")[0])
    assert stream.finish() == ("", True)
