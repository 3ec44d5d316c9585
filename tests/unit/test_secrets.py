"""Secrets in command lines: none gets through, and nothing else is lost."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.text import secrets
from cgmem.text.secrets import MASK, masked

# What begins with "--" after a flag is taken for the next flag.
SECRET = st.text(
    string.ascii_letters + string.digits + "!#$%*+,-./<>?@[]^_`{|}~", min_size=12
).filter(lambda text: not text.startswith("--"))
ANY_SECRET = st.text(min_size=1).filter(
    lambda text: text == text.strip() and not text.startswith("--")
)

FLAGS = (
    "--token", "-token", "--api-key", "--apiKey", "--accessKey", "--password", "--db-password",
    "--client_secret", "--secrets", "--passphrase", "--auth", "--credentials", "--cookie", "--pat",
)  # fmt: skip
NAMES = (
    "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "GITHUB_TOKEN_CI", "PGPASSWORD",
    "password", "--token", "--password", "--api-key", "-DdbPassword", "X_AUTH", "privateKey",
)  # fmt: skip


@given(st.sampled_from(FLAGS), ANY_SECRET)
def test_the_word_after_a_flag(flag: str, secret: str) -> None:
    """`--token SECRET`: the whole word goes, whatever it holds; its neighbours stay."""
    assert masked(["prog", flag, secret, "last"]) == ("prog", flag, MASK, "last")


@given(st.sampled_from(NAMES), ANY_SECRET)
def test_assigned_in_a_word(name: str, secret: str) -> None:
    """`--token=SECRET`, `NAME_KEY=SECRET`: all of the rest of the word goes, spaces and all."""
    assert masked(["env", f"{name}={secret}", "last"]) == ("env", f"{name}={MASK}", "last")


@pytest.mark.parametrize(
    "template",
    [
        "curl -H 'Authorization: Bearer {}' https://example.org/x",
        "curl -H 'Authorization: Basic {}' https://example.org/x",
        'curl -H "X-Api-Key: {}" https://example.org/x',
        'curl -H "Cookie: a=b; session={}" https://example.org/x',
        "prog --flag --token {} --more",
        "prog --token={} --more",
        "prog --token '{}' --more",
        "export API_KEY={}\nprog",
        '{{"user": "me", "password": "{}", "n": 1}}',
        "set -e; password = '{}'; run",
        "docker run --env=GITHUB_TOKEN={} image",
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    ],
)
@given(secret=SECRET)
def test_inside_a_word(template: str, secret: str) -> None:
    """In a shell's script, a header or JSON the secret goes, in whichever word it stands."""
    shown = masked(["sh", "-c", template.format(secret)])

    assert secret not in " ".join(shown)
    assert shown[:2] == ("sh", "-c")
    assert MASK in shown[2]


@given(st.text(string.ascii_letters + string.digits + "!$%*+,-./:;=?@[]^_`{|}~", min_size=12))
def test_a_password_in_a_url(password: str) -> None:
    """`scheme://user:password@host` keeps all but the password, however badly it is escaped."""
    shown = masked([f"postgres://me:x{password}@db.example.org/name"])

    assert shown == (f"postgres://me:{MASK}@db.example.org/name",)


@pytest.mark.parametrize(
    "prefix", ["sk-", "sk-ant-api03-", "ghp_", "github_pat_", "glpat-", "xoxb-", "hf_", "sk_live_"]
)
@given(secret=st.text(string.ascii_letters + string.digits, min_size=24, max_size=60))
def test_well_known_prefixes(prefix: str, secret: str) -> None:
    """A word, or a part of one, with a well-known prefix is a secret without any name."""
    assert masked(["prog", prefix + secret]) == ("prog", MASK)
    assert secret not in masked([f"prog({prefix}{secret})"])[0]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["curl", "-u", "me:pw", "x"], ("curl", "-u", f"me:{MASK}", "x")),
        (["sh", "-c", "curl -u me:pw x"], ("sh", "-c", f"curl -u me:{MASK} x")),
        (["git", "clone", "https://0123456789abcdef0123@x.org/r"], None),
        (["openssl", "-passin", "pass:pw"], ("openssl", "-passin", f"pass:{MASK}")),
        (["--key", "-----BEGIN PRIVATE KEY-----\nx"], ("--key", MASK)),
        (["x?api_key=pw&page=2"], (f"x?api_key={MASK}&page=2",)),
        (["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0.abc"], (MASK,)),
    ],
)
def test_other_forms(words: list[str], shown: tuple[str, ...] | None) -> None:
    """What particular programs take."""
    expected = shown or ("git", "clone", f"https://{MASK}@x.org/r")

    assert masked(words) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["python3", "-m", "pytest", "-q", "tests/unit"],
        ["make", "-j8", "CC=gcc"],
        ["train.py", "--tokenizer=gpt2", "--max-tokens", "4096", "--max_tokens=5"],
        ["docker", "login", "--password-stdin", "registry.example.org"],
        ["prog", "--token", "--verbose"],
        ["prog", "--monkey", "banana", "--bypass", "gate", "--author", "me", "--monkey=banana"],
        ["npm", "i", "https://registry.example.org:8080/@scope/package"],
        ["ssh", "ssh://git@example.org/repo", "-u", "root"],
        ["task-runner-with-a-long-name", "disk-usage-of-everything-there-is"],
        ["--token="],
        ["--token", ""],
        [],
    ],
)
def test_nothing_else_is_lost(words: list[str]) -> None:
    """A command line without a secret is shown as it is."""
    assert masked(words) == tuple(words)


@given(st.lists(st.text(), max_size=6))
def test_as_many_words_as_there_were(words: list[str]) -> None:
    """Whatever a command line holds, it keeps its words' number, and masking it again is safe."""
    assert len(masked(words)) == len(words)


@given(
    st.lists(
        st.sampled_from(["-", "--", "key", "pass", "Key", "=", ":", " ", "x", "Bearer ", "-u", "@"])
        | st.text(max_size=3),
        max_size=8,
    ).map("".join)
)
def test_the_quick_look_misses_nothing(word: str) -> None:
    """Where no sign is found, the patterns would have found nothing either."""
    if not any(sign in f"{word}\0".lower() for sign in secrets._SIGNS):
        assert secrets._masked_after("", word) == word


@pytest.mark.parametrize(
    "piece", ["token", "://a:", "-eyJaaaaaaaa", "--key ", 'token"', "'", "a-", "_key", "-u ", "sk-"]
)
def test_time_is_bounded(piece: str) -> None:
    """The longest argument that Linux takes (128 KiB), of nothing but signs, costs no minutes."""
    assert len(masked([piece * (131072 // len(piece))])) == 1
