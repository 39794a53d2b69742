"""Marks in the place of what is private; every secret here is made up, in two pieces."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.texts import COLUMNS, make_batch
from sharpen.data import ops


def masked(text, **marks):
    return ops.mask_pii(**marks).edit(make_batch([text])).to_pylist()[0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("write to jo.b+x@mail.example.org, please", "write to <EMAIL>, please"),
        ("card 4111 1111 1111 1111 of Jo", "card <CARD> of Jo"),
        ("card 4111-1111-1111-1112", "card 4111-1111-1111-1112"),
        ("4012888888881881", "<CARD>"),
        ("0000000000000000", "0000000000000000"),
        ("pay GB82 WEST 1234 5698 7654 32 now", "pay <IBAN> now"),
        ("pay DE89370400440532013000", "pay <IBAN>"),
        ("pay DE88370400440532013000", "pay DE88370400440532013000"),
        ("8.8.8.8 and 192.168.0.1 and 999.1.1.1", "<IP> and 192.168.0.1 and 999.1.1.1"),
        ("at 2001:4860:4860::8888, port 53", "at <IP>, port 53"),
        ("at 10:30:45 std::vector a::b", "at 10:30:45 std::vector a::b"),
        ("call +44 20 7946 0958 or (020) 7946 0958", "call <PHONE> or <PHONE>"),
        ("call 555-867-5309.", "call <PHONE>."),
        ("in 1999-2004, 3.14159, 2024-05-06", "in 1999-2004, 3.14159, 2024-05-06"),
    ],
)
def test_what_is_private_is_masked(text, wanted):
    assert masked(text) == wanted


def test_marks_are_chosen():
    text = "a@b.org 8.8.8.8 555-867-5309"
    assert masked(text, emails=None, ips="\\1", phones="") == "a@b.org \\1 "
    off = dict.fromkeys(("emails", "phones", "cards", "ibans", "ips"))
    batch = make_batch([text])
    assert ops.mask_pii(**off).edit(batch) is batch.texts.column


@given(st.integers(0, 10**15 - 1))
def test_every_card_with_a_right_digit_is_found(number):
    digits = [int(c) for c in f"{number:015d}"]
    doubled = [d if i % 2 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)]
    card = f"{number:015d}{-sum(doubled) % 10}"
    if number:
        assert masked(card, phones=None) == "<CARD>"
        wrong = card[:-1] + str((int(card[-1]) + 1) % 10)
        assert masked(wrong, phones=None) == wrong


@given(st.ip_addresses())
def test_public_addresses_are_found(address):
    text = f"from {address} to"
    groups = [group for group in str(address).split(":") if group]
    public = ipaddress.ip_address(str(address)).is_global and (
        address.version == 4 or len(groups) > 2
    )
    if not str(address).startswith("::"):
        assert masked(text, phones=None) == ("from <IP> to" if public else text)


SECRETS = [
    "AKIA" + "ABCDEFGHIJ234567",
    "ghp_" + "a1B2" * 9,
    "xoxb-" + "1234567890-abcdef",
    "AIza" + "x" * 35,
    "sk_live_" + "a1" * 10,
    "eyJ" + "hbGciOiJI." + "eyJ" + "zdWIiOiIx.abcdefgh",
    "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIB\n-----END RSA " + "PRIVATE KEY-----",
    "https://jo:" + "hunter22@example.org",
    'api_key = "' + 'q8Zx04Lm2Tv7"',
    "'client_secret': '" + "f3a9c1d7e5b8'",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_found_and_masked(secret):
    text = f"before {secret} after"
    assert ops.secrets().measure(make_batch([text, "before"]))["secrets"].tolist() == [1, 0]
    found = ops.mask_secrets().edit(make_batch([text, "before"])).to_pylist()
    assert found[1] == "before"
    assert found[0].startswith("before ")
    assert "<SECRET>" in found[0]
    assert ops.secrets().measure(make_batch(found))["secrets"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "text",
    [
        'password = "changeme"',
        'api_key = "YOUR_API_KEY_HERE"',
        'token = "aaaaaaaa1"',
        "secret = getpass()",
        "ghp_short",
        "https://example.org:8080/a@b",
    ],
)
def test_placeholders_are_no_secrets(text):
    batch = make_batch([text])
    assert ops.secrets().measure(batch)["secrets"].tolist() == [0]
    assert ops.mask_secrets().edit(batch) is not None
    assert ops.mask_secrets().edit(batch).to_pylist() == [text]


@given(COLUMNS)
def test_other_texts_stay(texts):
    plain = [text for text in texts if not any(c in "@0123456789" for c in text)]
    assert ops.mask_pii().edit(make_batch(plain)).to_pylist() == plain
    assert ops.mask_secrets().edit(make_batch(plain)).to_pylist() == plain
