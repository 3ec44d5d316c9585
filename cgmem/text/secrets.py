"""Secrets in command lines, masked. Pure.

Whoever may log in can read a command line while its process lives (proc(5)); a log keeps it and
is passed on. Masked are the values of names that speak of a secret (`--token=…`, `--token …`,
`*_KEY=…`, `password=…`, `X-Api-Key: …`), passwords in URLs, `Authorization: …`, private keys, and
words with a well-known prefix (`sk-…`, `ghp_…`). What gives no such sign can't be told from
another word: `mysql -pVALUE`, a password as a plain argument.

In doubt a word too many is masked: `sort --key 2` becomes `sort --key ***`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache

MASK = "***"

_SPEAKING = (
    "token", "secret", "password", "passwd", "passphrase", "apikey", "api-key", "api_key",
    "api.key", "credential", "authorization",
)  # fmt: skip
"""What makes a name one of a secret wherever it stands in it."""

_NO_SECRET = ("tokens", "tokeniz")
"""`--max-tokens`, `--tokenizer`: sizes and files of language models."""

_WORDS = frozenset({
    "key", "keys", "auth", "pass", "pwd", "pw", "pat", "jwt", "bearer", "cookie", "cookies",
    "signature", "sig", "sas", "pin", "otp",
})  # fmt: skip
"""What does so only as a name's last word: `--monkey` and `--bypass` hold no secret."""

_PREFIXES = (
    r"sk-[\w-]{16,}|[srp]k_(?:live|test)_\w+|whsec_\w+"
    r"|gh[oprsu]_\w{8,}|github_pat_\w+|glpat-[\w-]+|xox[a-z]-[\w-]+|xapp-[\w-]+"
    r"|A[KS]IA[0-9A-Z]{12,}|AIza[\w-]{16,}|ya29\.[\w.-]+|hf_\w{16,}|npm_\w{16,}"
    r"|pypi-[\w-]{16,}|dop_v1_\w+|hvs\.[\w-]+|SG\.[\w-]{8,256}+\.[\w-]+|eyJ[\w-]{8,1024}+\.[\w.-]+"
)


class _Patterns:
    """Compiled at first need: most processes never have it.

    Lengths are bounded: without, a long word of nothing but signs would take quadratic time.
    """

    def __init__(self) -> None:
        self.flag = re.compile(r"--?[\w.-]+")
        self.long_option = re.compile(r"--[A-Za-z][\w-]*(?:=.*)?", re.S)
        self.whole = re.compile(r"(-{0,2}[\w.-]+)([=:]\s*)(.+)", re.S)
        self.user_flag = re.compile(r"-u|--user|--proxy-user")
        self.user = re.compile(r"([^:/\s]+:)(?!//).+", re.S)
        self.assigned = re.compile(r"(?<![\w.-])([\w.-]++)[\"']?\s{0,16}[=:]\s*")
        self.spaced = re.compile(r"(?<![\w.-])(--?[\w.-]++)\s+(?!--[A-Za-z])")
        self.value = re.compile(r"\"(?:\\.|[^\"])*+\"?|'[^']*+'?|[^\s\"';&]+", re.S)
        self.inside = tuple(
            (re.compile(pattern), instead)
            for pattern, instead in (
                (r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[\s\S]*", MASK),
                # A header's value, to the quote or the line's end: `Bearer …`, `a=b; c=d`.
                (
                    r"((?i:authorization|cookie)[\"']?\s*[:=]\s*[\"']?)[^\"'\r\n]+",
                    rf"\g<1>{MASK}",
                ),
                # A URL's password, up to the last @, as people don't escape it; a port is none.
                (
                    r"(://[^\s/?#:@]{0,256}:)(?!\d+(?:[/?#]|$))[^\s\"'<>]{0,512}@",
                    rf"\g<1>{MASK}@",
                ),
                (r"(://)[^\s/?#:@]{20,512}(?=(?::[^\s/?#@]{0,64})?@)", rf"\g<1>{MASK}"),
                (
                    r"(?<![\w-])((?:-u|--user|--proxy-user)(?:\s+|=)[^\s:/\"']{1,64}:)[^\s\"']+",
                    rf"\g<1>{MASK}",
                ),
                (r"\b((?i:bearer)\s+)[^\s\"']{8,}", rf"\g<1>{MASK}"),
                (rf"(?<![A-Za-z0-9])(?:{_PREFIXES})", MASK),
            )
        )


_patterns = cache(_Patterns)

_SIGNS = (
    *_SPEAKING, "key", "auth", "jwt", "bearer", "cookie", "signature", "://", "private key",
    *(word + end for word in ("pass", "pwd", "pw", "pat", "sig", "sas", "pin", "otp") for end in
      ("=", ":", "\"", "'", " ", "\t", "\n", "\0")),
    "-u", "--user", "--proxy-user", "sk-", "k_live_", "k_test_", "whsec_", "gho_", "ghp_", "ghr_",
    "ghs_", "ghu_", "github_pat_", "glpat-", "xox", "xapp-", "akia", "asia", "aiza",
    "ya29.", "hf_", "npm_", "pypi-", "dop_v1_", "hvs.", "sg.", "eyj",
)  # fmt: skip
"""One of these, in lower case, is in whatever a pattern would find."""


def masked(words: Sequence[str]) -> tuple[str, ...]:
    """Return a command line's words, as many, each secret in them replaced by `MASK`."""
    text = "\0".join((*words, "")).lower()
    if not any(sign in text for sign in _SIGNS):
        return tuple(words)
    befores = ("", *words[:-1])
    return tuple(map(_masked_after, befores, words))


def _masked_after(before: str, word: str) -> str:
    patterns = _patterns()
    if (
        word
        and patterns.flag.fullmatch(before)
        and _ends_as_secret(before)
        and not patterns.long_option.fullmatch(word)
    ):
        return MASK
    if patterns.user_flag.fullmatch(before) and (found := patterns.user.fullmatch(word)):
        return found[1] + MASK
    # All of the rest: the value of a word of its own may hold spaces.
    if (found := patterns.whole.fullmatch(word)) and _names_secret(found[1]):
        return found[1] + found[2] + MASK
    for pattern, instead in patterns.inside:
        word = pattern.sub(instead, word)
    word = _values_masked(word, patterns.assigned.finditer(word), _names_secret)
    return _values_masked(word, patterns.spaced.finditer(word), _ends_as_secret)


def _values_masked(text: str, names: Iterable[re.Match[str]], speaks: Callable[[str], bool]) -> str:
    parts, at = [], 0
    for name in names:
        if name.start() < at or not speaks(name[1]):
            continue
        value = _patterns().value.match(text, name.end())
        if value is not None:
            parts += [text[at : name.end()], MASK]
            at = value.end()
    return "".join([*parts, text[at:]])


def _names_secret(name: str) -> bool:
    """A name may go on after what speaks of a secret: `GITHUB_TOKEN_CI=`."""
    return _speaks(name.lower()) or _last_word_speaks(name)


def _ends_as_secret(name: str) -> bool:
    """Not where the value is the next word: `--password-stdin` takes none."""
    lower = name.lower()
    plural = lower.removesuffix("s")
    return (
        lower.endswith(_SPEAKING)
        or (plural.endswith(_SPEAKING) and not lower.endswith(_NO_SECRET))
        or _last_word_speaks(name)
    )


def _speaks(name: str) -> bool:
    for word in _NO_SECRET:
        name = name.replace(word, "")
    return any(word in name for word in _SPEAKING)


def _last_word_speaks(name: str) -> bool:
    word = name.replace("_", "-").replace(".", "-").rpartition("-")[2]
    if word.lower() in _WORDS:
        return True
    # accessKey, but not monkey
    return word.endswith("Key") and word[:-3][-1:].islower()
