"""The configuration file: where it is found, what it may say, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.config import config_file, config_text
from cgmem.config.config_file import LARGEST_FILE_BYTES, ConfigFile, find_config, read_config
from cgmem.config.config_text import parse_config
from cgmem.errors import ConfigurationError

KNOWN = frozenset({"warning", "max", "swap", "timeout", "keep", "enforcement", "on_stall"})


def read(path: Path, source: str | None = None) -> ConfigFile:
    """Read a file with a few known keys."""
    return read_config(str(path), known=KNOWN, nested="agent_types", source=source)


def values_of(text: str) -> dict[str, str | int | float | bool]:
    """Return the top-level values of a text."""
    return parse_config(text, path="cgmem.yaml", known=KNOWN, nested="agent_types")[0]


def error_of(text: str) -> ConfigurationError:
    """Return the error that a text is refused with."""
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text, path="cgmem.yaml", known=KNOWN, nested="agent_types")
    return caught.value


def test_the_nearest_file_is_found(tmp_path: Path) -> None:
    """The search goes from the directory upwards; in one directory cgmem.yaml comes first."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / ".claude-pm").mkdir()
    outer = tmp_path / ".claude-pm" / "memory.yaml"
    outer.write_text("max: 1G")
    found_outer = find_config(str(below))
    inner = tmp_path / "cgmem.yaml"
    inner.write_text("max: 1G")
    found_first = find_config(str(below))
    nearest = tmp_path / "a" / "cgmem.yaml"
    nearest.write_text("max: 1G")

    assert found_outer == str(outer)
    assert found_first == str(inner)
    assert find_config(f"{below}/") == str(nearest)


def test_where_no_file_is_none_is_found(tmp_path: Path) -> None:
    """The search ends at the root, also when it begins there or in a removed directory."""
    assert find_config(str(tmp_path / "gone" / "long ago")) is None
    assert find_config("/") is None
    assert find_config("") is None


def test_a_file_planted_in_a_public_directory_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sticky directory that everyone may write to, only the user's own file counts."""
    public = tmp_path / "tmp"
    public.mkdir()
    (public / "cgmem.yaml").write_text("enforcement: off")
    before = find_config(str(public))
    public.chmod(0o1777)
    mine = find_config(str(public))
    theirs = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: theirs)
    real_stat = Path.stat

    def stat_owned_by_root(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        fields = list(real_stat(path, follow_symlinks=follow_symlinks))
        fields[4] = theirs + 1 if path == public else fields[4]
        return os.stat_result(fields)

    monkeypatch.setattr(Path, "stat", stat_owned_by_root)

    assert before == mine == str(public / "cgmem.yaml")
    assert find_config(str(public)) is None


def test_a_file_says_settings_and_agent_types(tmp_path: Path) -> None:
    """Scalars keep their types, and agent types have the same keys."""
    file = tmp_path / "cgmem.yaml"
    file.write_text(
        "# budgets\n"
        "max: 2G\nswap: 0\ntimeout: 1.5\nkeep: true\nenforcement: off\n"
        "agent_types:\n  engineer: {max: 1G}\n  'qa':\n    max: \"512M\"\n"
        "groups:\n  build: 3G\n"
    )

    assert read(file) == (
        str(file),
        {"max": "2G", "swap": 0, "timeout": 1.5, "keep": True, "enforcement": "off"},
        {"engineer": {"max": "1G"}, "qa": {"max": "512M"}},
        {},
        {"build": "3G"},
    )


def test_templates_are_text_as_it_is_written() -> None:
    """A template's value is text, a list of text or a mapping of text, never a number or a bool."""
    text = (
        "command: [run, 012, true, '{prompt}']\nmax: 1G\n"
        "agent_types:\n  qa:\n    command: npx agent -p {prompt}\n    env: {A: 1, B: ''}\n"
        "    max: 2G\n"
    )
    found = parse_config(
        text, path="x", known=KNOWN, nested="agent_types", templates=("command", "env")
    )

    assert found.values == {"max": "1G"}
    assert found.agent_types == {"qa": {"max": "2G"}}
    assert found.templates == {
        "": {"command": ["run", "012", "true", "{prompt}"]},
        "qa": {"command": "npx agent -p {prompt}", "env": {"A": "1", "B": ""}},
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("command:", "command has no value"),
        ("command: [a, [b]]", "a word of command is a list or mapping"),
        ("command: [a, ~]", "a word of command has no value"),
        ("env: {A: {B: c}}", "env.A is a list or mapping"),
        ("env: {A: b, A: c}", "'A' is there twice"),
        ("command: &x [a]", "anchors and aliases are not taken"),
        ("comand: [a]", "unknown setting 'comand'"),
    ],
)
def test_a_template_that_is_refused(text: str, what: str) -> None:
    """What no template can be is refused with path, line and key."""
    with pytest.raises(ConfigurationError, match=what) as caught:
        parse_config(
            text, path="f.yaml", known=KNOWN, nested="agent_types", templates=("command", "env")
        )

    assert str(caught.value).startswith("f.yaml:1: ")


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}", "null", "~"])
def test_an_empty_file_says_nothing(text: str) -> None:
    """An empty file is fine: no settings."""
    assert values_of(text) == {}


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that starts many subprocesses reads a file once, until it changes."""
    file = tmp_path / "cgmem.yaml"
    file.write_text("max: 1G")
    read(file)
    file.write_text("max: 512M # changed")
    changed = read(file)

    def unexpected(_path: Path) -> NoReturn:
        raise AssertionError("read again")

    monkeypatch.setattr(config_file, "_read_text", unexpected)

    assert changed.values == {"max": "512M"}
    assert read(file) is changed


def test_an_unknown_key_is_refused_with_the_one_that_was_meant() -> None:
    """A typo gets path, line and the nearest key; a stranger gets all keys."""
    typo, stranger = error_of("max: 1G\nwarnign: 1G"), error_of("colour: red")

    assert str(typo) == "cgmem.yaml:2: unknown setting 'warnign'"
    assert typo.hint == "did you mean warning?"
    assert "known are agent_types, enforcement" in str(stranger.hint)


def test_an_unknown_key_of_an_agent_type_is_refused() -> None:
    """Agent types have the same keys, and none inside each other."""
    assert "unknown setting 'mx'" in str(error_of("agent_types: {qa: {mx: 1G}}"))
    assert "unknown setting 'agent_types'" in str(error_of("agent_types: {qa: {agent_types: {}}}"))


@pytest.mark.parametrize(
    "written",
    ["012", "0o12", "0x1F", "0b11", "1_000", "12:30:45", "1:30", "1e3", "1.5e+3", "+5", ".5",
     "5.", ".inf", "-.INF", ".nan", "007.5"],
)  # fmt: skip
def test_what_yaml_readers_read_differently_is_refused(written: str) -> None:
    """YAML 1.1 surprises get path, line, key and the value as it is written, unless quoted."""
    refused = error_of(f"keep: true\ntimeout: {written}")

    assert str(refused).startswith(f"cgmem.yaml:2: timeout: '{written}' means different things")
    assert values_of(f"timeout: '{written}'") == {"timeout": written}


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "n", "On", "2025-01-01", "1G"])
def test_words_are_words(word: str) -> None:
    """What YAML 1.1 would turn into a truth value or a date stays the word that is written."""
    assert values_of(f"enforcement: {word}") == {"enforcement": word}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max: 1G\nmax: 2G", "cgmem.yaml:2: 'max' is there twice"),
        ("agent_types: {a: {}, a: {}}", "'a' is there twice"),
        ("max:", "cgmem.yaml:1: max has no value"),
        ("max: null", "max has no value"),
        ("max: ~", "max has no value"),
        ("max: [1G]", "max is a list or mapping"),
        ("max: {a: b}", "max is a list or mapping"),
        ("- max", "the file is not a mapping"),
        ("512M", "the file is not a mapping"),
        ("agent_types: 5", "agent_types is not a mapping"),
        ("agent_types:", "agent_types is not a mapping"),
        ("agent_types: {qa: 1G}", "agent_types.qa is not a mapping"),
        ("[a]: b", "has a key that is no word"),
        ("max: &a 1G", "max: anchors and aliases are not taken"),
        ("agent_types: {a: &x {max: 1G}, b: *x}", "anchors and aliases are not taken"),
        ("max: !!str 1", "max: tags are not taken"),
        ("max: !!python/object/apply:os.system [x]", "tags are not taken"),
        ("--- !!map\nmax: 1G", "the file: tags are not taken"),
        ("max: 1G\n---\nmax: 2G", "cgmem.yaml:2: a second document begins here"),
        ("max: 'open", "not YAML"),
        ("max: 1G\n\tswap: 0", "not YAML"),
        ("max: @1G", "not YAML"),
        ("max: \x00", "not YAML: it holds characters that are not text"),
        ("%YAML 9.0\n---\nmax: 1G", "not YAML"),
        ("<<: {max: 1G}", "unknown setting '<<'"),
        ("[" * 60_000, "not a mapping"),
        ("{max: " * 10_000, "list or mapping"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_configuration_is_refused(text: str, problem: str) -> None:
    """Each mistake gets a word of its own, a place and a next step."""
    refused = error_of(text)

    assert str(refused).startswith("cgmem.yaml")
    assert problem in str(refused)
    assert refused.hint


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader fail in another way than with a ConfigurationError."""
    try:
        parse_config(text, path="cgmem.yaml", known=KNOWN, nested="agent_types")
    except ConfigurationError as err:
        refused = str(err)
    else:
        return

    assert refused.startswith("cgmem.yaml")


def test_the_pure_loader_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyYAML without libyaml gives the same values and the same errors."""
    import yaml

    text = "max: 2G\nkeep: true\nagent_types: {qa: {swap: 0}}"
    fast, refused = values_of(text), str(error_of("max: 1\nmax: 2"))
    monkeypatch.setattr(config_text, "_LOADER", yaml.SafeLoader)

    assert values_of(text) == fast
    assert str(error_of("max: 1\nmax: 2")) == refused


def test_what_cannot_be_read_names_the_path_and_who_named_it(tmp_path: Path) -> None:
    """A missing file and a directory are refused with the system's word for it."""
    with pytest.raises(ConfigurationError, match=r"^--config: can't read .*No such file"):
        read(tmp_path / "none.yaml", source="--config")
    with pytest.raises(ConfigurationError, match=f"^can't read {tmp_path}: Is a directory"):
        read(tmp_path)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without read permission is an error, not silently no configuration."""

    def refuse(_path: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "cgmem.yaml"
    file.write_text("max: 1G")
    file.chmod(0)
    monkeypatch.setattr(config_file, "_read_text", refuse)  # root may read every file

    assert find_config(str(tmp_path)) == str(file)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        read(file)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """A file that can't be a configuration is not read to its end."""
    file = tmp_path / "cgmem.yaml"
    file.write_bytes(b"#" * (LARGEST_FILE_BYTES + 1))

    with pytest.raises(ConfigurationError, match="larger than 64 KiB"):
        read(file)
    with pytest.raises(ConfigurationError, match="larger than 64 KiB"):
        read(Path("/dev/zero"))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Bad UTF-8 names the line; a byte order mark is no mistake."""
    file = tmp_path / "cgmem.yaml"
    file.write_bytes(b"max: 1G\nlog_dir: \xff\n")
    with pytest.raises(ConfigurationError, match="yaml:2: not UTF-8 text"):
        read(file)
    file.write_bytes(b"\xef\xbb\xbfmax: 1G")

    assert read(file).values == {"max": "1G"}


def test_an_empty_device_is_an_empty_file() -> None:
    """`--config /dev/null` means: no file."""
    assert read(Path("/dev/null")).values == {}
