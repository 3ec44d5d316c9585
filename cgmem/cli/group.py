"""The group of verbs. Help and lookup know them by name; a verb's module is loaded when used."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from cgmem import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Verb(NamedTuple):
    """One verb: the module that holds its click command, its line in --help, the command's name."""

    module: str
    help: str
    attribute: str = "command"


VERBS = {
    "run": Verb("cgmem.cli.run", "Run a command under a memory budget."),
    "ps": Verb("cgmem.cli.ps", "List live subprocesses, whoever started them."),
    "top": Verb("cgmem.cli.top", "Watch live subprocesses on the whole screen."),
    "show": Verb("cgmem.cli.show", "Show one live subprocess in detail."),
    "adopt": Verb("cgmem.cli.adopt", "Take over a subprocess whose supervisor is gone."),
    "gc": Verb("cgmem.cli.gc", "Remove what supervisors that were killed have left."),
    "set": Verb("cgmem.cli.set", "Set another budget on a live subprocess."),
    "freeze": Verb("cgmem.cli.freeze", "Stop a live subprocess and keep its memory."),
    "thaw": Verb("cgmem.cli.freeze", "Let a frozen subprocess run again.", "thaw"),
    "reclaim": Verb("cgmem.cli.reclaim", "Have the kernel take back page cache."),
    "kill": Verb("cgmem.cli.kill", "End a live subprocess with everything in it."),
    "alerts": Verb("cgmem.cli.alerts", "Show the alert log, or follow it."),
    "stats": Verb("cgmem.cli.stats", "Sum up past runs; suggest thresholds."),
    "trace": Verb("cgmem.cli.trace", "Follow every process, find the hog."),
    "plot": Verb("cgmem.cli.plot", "Draw the memory of a subprocess over time."),
    "status": Verb("cgmem.cli.status", "Show the machine's memory, backend and log directory."),
    "check": Verb("cgmem.cli.check", "Say whether there is memory to start a subprocess."),
    "doctor": Verb("cgmem.cli.doctor", "Try every backend on this host and say what works."),
    "config": Verb("cgmem.cli.config", "Show every setting and where it came from."),
    "completion": Verb("cgmem.cli.completion", "Print a shell's completion script."),
    "man": Verb("cgmem.cli.man", "Print a manual page."),
}


class LazyGroup(click.Group):
    """A click group that imports a verb's module only to use it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one verb; None for a name that there isn't."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        return cast(click.Command, getattr(import_module(verb.module), verb.attribute))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; for a mistyped one say which was meant."""
        mistyped = args and args[0] not in VERBS and not args[0].startswith("-")
        if mistyped and not ctx.resilient_parsing:
            from cgmem.text.words import meant, shown

            ctx.fail(f"there is no command {shown(args[0])}; {meant(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete verbs from the table, importing none."""
        from click.shell_completion import CompletionItem

        verbs = [
            CompletionItem(name, help=verb.help)
            for name, verb in VERBS.items()
            if name.startswith(incomplete)
        ]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


def run_verb(words: list[str]) -> Any:
    """Run one command line, and return its exit status. Raises whatever went wrong."""
    # The variable is click's: the shell asks for completions.
    if "_CGMEM_COMPLETE" in os.environ:
        return cgmem.main(words, prog_name="cgmem", standalone_mode=False)
    # Not by `main`: to that a reader of our output who goes away is status 1, which means "no".
    try:
        with cgmem.make_context("cgmem", words) as context:
            return cgmem.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="\b\nExample:\n  cgmem run --max 512M -- make -j8\n\n"
    "\b\nExit status:\n  0  done   1  the answer is no   2  wrong usage or trouble\n"
    "  `run` has its own: see cgmem run --help",
)
@click.version_option(__version__, prog_name="cgmem", message="%(prog)s %(version)s")
def cgmem() -> None:
    """Run commands under a memory budget that the Linux kernel enforces."""
