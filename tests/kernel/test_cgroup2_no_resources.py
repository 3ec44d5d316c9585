"""Out of descriptors, out of processes: a clear error, and nothing left behind."""

from __future__ import annotations

import pytest

from tests.kernel import real_cgroups as real


@pytest.fixture(autouse=True)
def _kernel() -> None:
    real.need_cgroup2()


NO_DESCRIPTORS = """
import resource, subprocess
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "backend": "cgroup2",
                         "tick": 30.0}, warn=lambda text: None)
if sys.argv[2] == "warm":
    cgmem.run(["true"], supervisor=supervisor)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
used = sorted(map(int, os.listdir("/proc/self/fd")))
errors = []
# Every number of free descriptors is another place to fail at.
for free in range(12):
    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used[-1] + free, hard))
    try:
        process = cgmem.spawn(["true"], supervisor=supervisor)
        process.outcome(60)
    except OSError as error:
        errors.append([type(error).__name__, error.errno, str(error)])
    except Exception as error:
        errors.append([type(error).__name__, None, str(error)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
say(errors=errors)
outcome = cgmem.run(["true"], supervisor=supervisor)
supervisor.close()
say(cause=outcome.cause, backend=outcome.backend, limit=outcome.limits.effective_max_source)
"""


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_descriptor_limit(tmp_path: object, state: str) -> None:
    """At RLIMIT_NOFILE a start says so, leaves no cgroup, and the next one is in order again."""
    with real.stage(memory_max=str(1 << 30)) as directory:
        with real.Script(NO_DESCRIPTORS, tmp_path, state, inside=directory) as script:
            errors = script.heard()["errors"]
            said = script.heard()
            left = real.scopes_below(directory)

    assert errors, "the test proves nothing unless a start failed"
    assert all(number == 24 and "Too many open files" in text for _, number, text in errors), errors
    assert said == {"cause": "exited", "backend": "cgroup2", "limit": str(directory)}
    assert left == []


NO_PROCESSES = """
import threading
supervisor = Supervisor({"preflight": False, "log_dir": sys.argv[1], "tick": 30.0})
cgmem.run(["true"], supervisor=supervisor)
while "cgmem-guard-start" in {thread.name for thread in threading.enumerate()}:
    time.sleep(0.01)  # what it starts counts here, too
stage = Path(sys.argv[2])
said = {"error": None}
for _ in range(20):  # a thread or a zombie that was counted may go after the count
    (stage / "pids.max").write_text((stage / "pids.current").read_text())
    try:
        cgmem.spawn(["true"], supervisor=supervisor).outcome(60)
    except Exception as error:
        said = {"error": type(error).__name__, "errno": getattr(error, "errno", None)}
        break
left = sorted(path.name for path in stage.glob("cgmem-[!g]*"))
live = len(supervisor.live())
(stage / "pids.max").write_text("max")
outcome = cgmem.run(["true"], supervisor=supervisor)
say(left=left, live=live, cause=outcome.cause, **said)
supervisor.close()
"""


def test_no_process_to_be_had(tmp_path: object) -> None:
    """At pids.max a start raises what Popen raises, BlockingIOError, and leaves no cgroup."""
    (real.base() / "cgroup.subtree_control").write_text("+pids")
    with real.stage() as directory:
        with real.Script(NO_PROCESSES, tmp_path, directory, inside=directory) as script:
            said = script.heard()

    assert said == {
        "error": "BlockingIOError",
        "errno": 11,
        "left": ["cgmem-supervisor"],
        "live": 0,
        "cause": "exited",
    }
