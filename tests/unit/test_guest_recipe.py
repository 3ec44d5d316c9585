"""The guest images' recipe and its key."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cgmem_guest import recipe
from cgmem_guest.image import customize, mmdebstrap_command
from cgmem_guest.recipe import (
    BENCH_PACKAGES,
    BOOKWORM,
    BOX_OVERLAY,
    GUESTS,
    OVERLAY,
    TRIXIE,
    Recipe,
    box_recipe,
    guest_recipe,
)


@pytest.fixture
def base(tmp_path: Path) -> Recipe:
    """A recipe with an overlay of its own."""
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "unit").write_text("one\n")
    return Recipe(TRIXIE, overlays=(overlay,))


def test_key_is_stable(base: Recipe) -> None:
    """The same recipe has the same short key, wherever its overlay lies and in whatever order."""
    (overlay,) = base.overlays
    moved = shutil.copytree(overlay, overlay.with_name("elsewhere"))
    same = replace(base, overlays=(moved,), packages=tuple(reversed(base.packages)))

    assert base.key() == same.key()
    assert re.fullmatch(r"[0-9a-f]{12}", base.key())


def test_key_follows_each_part(base: Recipe) -> None:
    """The key changes with the release, packages, left-out paths, disk size and code version."""
    others = [
        replace(base, release=BOOKWORM),
        replace(base, packages=(*base.packages, "sl")),
        replace(base, excluded_paths=()),
        replace(base, disk_size="3G"),
        replace(base, build_version=base.build_version + 1),
    ]

    assert len({base.key(), *(other.key() for other in others)}) == len(others) + 1


def test_key_follows_the_overlay(base: Recipe) -> None:
    """The key changes when an overlay file changes content, name or its executable bit."""
    keys = [base.key()]
    unit = base.overlays[0] / "unit"
    unit.write_text("two\n")
    keys.append(base.key())
    unit.chmod(0o755)
    keys.append(base.key())
    unit.rename(unit.with_name("renamed"))
    keys.append(base.key())

    assert len(set(keys)) == len(keys)


def test_guests_that_issue_promises_exist() -> None:
    """The three tested guests exist, and the plain one shares Debian 13's image."""
    assert {"debian13", "debian12", "plain"} <= set(GUESTS)
    assert GUESTS["plain"].release is GUESTS["debian13"].release


def test_a_guest_with_packages_of_its_own_leaves_the_others_images_alone() -> None:
    """The bench's programs are in its image only; the rest of it is the test guest's."""
    bench, tested = guest_recipe(GUESTS["bench"]), guest_recipe(GUESTS["debian13"])

    assert tested == guest_recipe(GUESTS["plain"]) == Recipe(TRIXIE)
    assert set(bench.packages) == {*tested.packages, *BENCH_PACKAGES}
    assert replace(bench, packages=tested.packages) == tested


def test_the_box_is_the_guest_and_more() -> None:
    """The box has all that the test guest is made of, in the same order, then its own part."""
    guest, box = Recipe(TRIXIE), box_recipe(TRIXIE)

    assert set(guest.packages) < set(box.packages)
    assert box.overlays == (*guest.overlays, BOX_OVERLAY)
    assert box.excluded_paths == guest.excluded_paths
    assert box.key() != guest.key()


def test_overlays_are_customized_in_their_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each overlay's script runs in the chroot, the box's after the guest's."""
    monkeypatch.setenv("CGMEM_GUEST_MIRROR", "mirror.invalid/debian")
    command = mmdebstrap_command(box_recipe(TRIXIE), tmp_path / "root.tar")
    hooks = [word for word in command if word.startswith("--customize-hook=")]

    assert [hook.rpartition(" ")[2] for hook in hooks] == [
        customize(OVERLAY),
        customize(BOX_OVERLAY),
    ]
    assert customize(BOX_OVERLAY) == "/usr/lib/cgmem-box/customize"


def test_overlay_scripts_are_executable() -> None:
    """Everything the guest runs from the overlay is executable in the checkout."""
    scripts = [
        *(OVERLAY / "usr/lib/cgmem-guest").iterdir(),
        *(OVERLAY / "etc/initramfs-tools/hooks").iterdir(),
        *(OVERLAY / "etc/initramfs-tools/scripts").rglob("cgmem-guest"),
    ]

    assert all(script.stat().st_mode & 0o111 for script in scripts)


def test_no_mirror_in_the_code() -> None:
    """No file of the package names a host: the mirror comes from the host's apt."""
    package = Path(recipe.__file__).parent
    texts = {
        path: path.read_text()
        for path in package.rglob("*")
        if path.suffix != ".pyc" and path.is_file()
    }

    assert [path for path, text in texts.items() if re.search(r"https?://", text)] == []
