"""`cgmem man`: manual pages, built from the same help (man-pages(7), groff_man(7))."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import cleandoc

import click

from cgmem import __version__
from cgmem.cli import options
from cgmem.cli.output import print_json
from cgmem.errors import ConfigurationError
from cgmem.text.words import meant, shown

EPILOG = """\b
Example:
  cgmem man run | man -l -

\b
Exit status:
  0  done   2  there is no such command
"""

_HEADINGS = ("Example:", "Examples:", "Exit status:", "Exit status: the command's own, or")


@click.command("man", epilog=EPILOG)
@click.argument("verb", required=False)
@options.json_option
def command(verb: str | None, as_json: bool) -> int:
    """Print the manual page of cgmem, or of one of its commands, for man(1)."""
    from cgmem.cli.group import VERBS

    if verb is not None and verb not in VERBS:
        raise ConfigurationError(f"there is no command {shown(verb)}", hint=meant(verb, VERBS))
    if as_json:
        print_json({"verb": verb, "page": page(verb)})
    else:
        print(page(verb), end="")
    return 0


def page(verb: str | None = None) -> str:
    """Build the page of one verb, or of the whole command."""
    from cgmem.cli.group import VERBS, cgmem

    top = click.Context(cgmem, info_name="cgmem")
    if verb is None:
        context, name, summary = top, "cgmem", "run commands under a memory budget"
    else:
        found = cgmem.get_command(top, verb)
        if found is None:
            raise AssertionError(verb)
        context = click.Context(found, info_name=verb, parent=top)
        name, summary = f"cgmem-{verb}", VERBS[verb].help.rstrip(".")
    lines = [
        f'.TH "{name.upper()}" "1" "" "cgmem {__version__}" "cgmem manual"',
        *_section("NAME", [f"{_plain(name)} \\- {_plain(summary)}"]),
        *_section("SYNOPSIS", [_synopsis(context)]),
        *_section("DESCRIPTION", _text(cleandoc(context.command.help or ""))),
        *_section("OPTIONS", list(_options(context))),
    ]
    if verb is None:
        lines += _section("COMMANDS", list(_listed([(n, v.help) for n, v in VERBS.items()])))
    lines += _epilog(context.command.epilog or "")
    others = VERBS if verb is None else []
    also = ", ".join(f"\\fB{_plain(f'cgmem-{other}')}\\fR(1)" for other in others)
    # No hyphens inside names.
    return "\n".join([*lines, *_section("SEE ALSO", [".nh", also or "\\fBcgmem\\fR(1)"]), ""])


def _synopsis(context: click.Context) -> str:
    words = [context.command_path, *context.command.collect_usage_pieces(context)]
    return f"\\fB{_plain(words[0])}\\fR {_plain(' '.join(words[1:]))}"


def _options(context: click.Context) -> Iterator[str]:
    records = (param.get_help_record(context) for param in context.command.get_params(context))
    # An argument has no help of its own: the description tells of it.
    yield from _listed([record for record in records if record and record[1]])


def _listed(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, text in pairs:
        yield from (".TP", f"\\fB{_plain(name)}\\fR", _plain(text))


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f".SH {title}", *lines] if lines else []


def _text(text: str) -> list[str]:
    """Paragraphs, filled by man; those that begin with \\b as they stand."""
    lines: list[str] = []
    for number, paragraph in enumerate(_paragraphs(text)):
        lines += [".PP"] if number else []
        if paragraph[0] == "\b":
            lines += [".nf", *map(_plain, paragraph[1:]), ".fi"]
        else:
            lines += map(_plain, paragraph)
    return lines


def _epilog(text: str) -> list[str]:
    """What stands below the options, its headings as sections."""
    lines: list[str] = []
    for paragraph in _paragraphs(text):
        heading = paragraph[1] if paragraph[0] == "\b" and len(paragraph) > 1 else ""
        if heading in _HEADINGS:
            words = heading.rstrip(":").partition(":")
            rest = [words[2].strip() + ":"] if words[2] else []
            body = [*map(_plain, rest), ".nf", *map(_plain, paragraph[2:]), ".fi"]
            lines += _section(words[0].upper(), body)
        else:
            lines += [*([] if lines else [".SH NOTES"]), *(_text("\n".join(paragraph))), ".PP"]
    return lines


def _paragraphs(text: str) -> list[list[str]]:
    blocks = (block.strip("\n").splitlines() for block in text.split("\n\n"))
    return [block for block in blocks if block]


def _plain(text: str) -> str:
    """Text that roff takes as it stands."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
