"""`cgmem adopt ID`: supervise a subprocess whose supervisor is gone, until its end."""

from __future__ import annotations

import signal

import click

from cgmem.cli import options
from cgmem.cli.errors import NO, complain, described
from cgmem.cli.output import print_json
from cgmem.cli.setting_flags import given, resolver
from cgmem.cli.voice import Voice
from cgmem.errors import InvalidIdError, UnknownIdError
from cgmem.judging.verdict import Verdict, exit_status
from cgmem.supervising.outcome import Outcome
from cgmem.supervising.supervision import Supervision
from cgmem.supervising.supervisor import Hooks, Supervisor
from cgmem.text.ids import check_id
from cgmem.text.sizes import format_size

EPILOG = """\b
Its thresholds, id and log directory are those that it was started with. As it
is no child of this command its exit status can't be known; a kill at its
limit can. Ctrl-C leaves it again: the hard limit stays, the brake is lifted.

\b
Example:
  cgmem adopt engineer_abc123

\b
Exit status:
  0  it has ended, or Ctrl-C   1  no subprocess to adopt has this id
  2  wrong usage or trouble    124, 137, 143  as cgmem run
"""


@click.command("adopt", epilog=EPILOG)
@click.argument("subprocess_id", metavar="ID")
@options.setting_option("on_stall", "POLICY")
@options.setting_option("stall_after", "SECONDS")
@options.setting_option("grace", "SECONDS")
@options.config_option
@options.json_option
@click.option("-q", "--quiet", is_flag=True, help="No alerts or warnings on stderr.")
@click.option("-v", "--verbose", is_flag=True, help="WARNING alerts too.")
def command(
    subprocess_id: str,
    config: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **values: object,
) -> int:
    """Take over a live subprocess whose supervisor is gone; wait for its end."""
    name = check_id(subprocess_id, source="ID")
    voice = Voice(quiet=quiet, verbose=verbose)
    supervisor = Supervisor(resolve_settings=resolver(config), warn=voice.warn)
    settings = supervisor.settings(given(values))
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    try:
        supervision = supervisor.adopt(name, settings=settings, hooks=Hooks(on_alert=voice.alert))
    except (UnknownIdError, InvalidIdError) as error:
        complain(described(error))
        return NO
    try:
        voice.detail(_adopted(supervision))
        supervision.ended.wait()
    except KeyboardInterrupt:
        voice.warn(f"{name} is left again: its hard limit stays, its brake is lifted")
    finally:
        supervisor.close()
    return _finish(name, supervision.outcome, voice, as_json=as_json)


def _adopted(supervision: Supervision) -> str:
    limits = supervision.plan.limits
    budget = f"brake {format_size(limits.high_bytes)}, max {format_size(limits.max_bytes)}"
    where = supervision.scope.record.log_dir
    return f"{supervision.subprocess_id}: taken over; {budget}; logs in {where}"


def _finish(name: str, outcome: Outcome | None, voice: Voice, *, as_json: bool) -> int:
    if outcome is None:
        if as_json:
            print_json({"subprocess_id": name, "detached": True})
        return 0
    if as_json:
        print_json(outcome.as_json())
    voice.end(outcome)
    if outcome.cause == "unknown":  # all that can be known of an end by itself
        return 0
    found = Verdict(outcome.cause, outcome.exit_code, outcome.signal, outcome.message)
    return exit_status(found, sigkill_needed=outcome.sigkill_needed).status
