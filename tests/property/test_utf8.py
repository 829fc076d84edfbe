"""What is UTF-8 is decided as `bytes.decode` would."""

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.kit.utf8 import is_utf8

pieces = st.one_of(
    st.text(max_size=4).map(lambda text: text.encode(errors="surrogatepass")),
    st.binary(max_size=3),
    st.sampled_from(
        [b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f\x92\xa9", b"\xc3\xa9\n", b"\x00"]
    ),
)


@given(st.lists(pieces, max_size=8), st.sampled_from([0, 4096, 5000]), st.integers(0, 5000))
@example([b"\xc3"], 4096, 5000)
@example([b"\xff"], 4096, 0)
def test_judged_as_decoding_would(parts: list[bytes], padding: int, place: int) -> None:
    """Short or long, wherever the doubtful bytes are: overlong forms, surrogates and what is cut off are refused."""
    filler = b"x" * padding
    data = filler[:place] + b"".join(parts) + filler[place:]
    try:
        data.decode()
    except UnicodeDecodeError:
        assert not is_utf8(data)
    else:
        assert is_utf8(data)
