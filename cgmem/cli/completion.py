"""`cgmem completion`: the script with which a shell completes verbs, options and live ids."""

from __future__ import annotations

import click

from cgmem.cli import options
from cgmem.cli.output import print_json

EPILOG = """\b
bash:  echo 'eval "$(cgmem completion bash)"' >> ~/.bashrc
zsh:   echo 'eval "$(cgmem completion zsh)"' >> ~/.zshrc
fish:  cgmem completion fish > ~/.config/fish/completions/cgmem.fish

\b
Example:
  eval "$(cgmem completion bash)"

\b
Exit status:
  0  done   2  wrong usage or trouble
"""


@click.command("completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@options.json_option
def command(shell: str, as_json: bool) -> int:
    """Print what makes SHELL complete commands, options and ids of live subprocesses."""
    from click.shell_completion import get_completion_class

    from cgmem.cli.group import cgmem

    found = get_completion_class(shell)
    if found is None:
        raise AssertionError(shell)
    script = found(cgmem, {}, "cgmem", "_CGMEM_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        print(script)
    return 0
