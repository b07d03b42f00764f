"""Runs tests on one mutant after the other, for tools/mutants.py: each in a fork that has every library loaded already.

Its arguments are the modules that load them; these are forgotten again, so that each fork imports its own, mutated.
It works in the copy of the checkout that is its working directory, and puts each file back. Jobs come as JSON lines on
standard input, verdicts go as JSON lines to standard output.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

LOADED: Final = (
    "keyvault_lite.app",
    "keyvault_lite.server.serve",
    "keyvault_lite.cli.main",
    "hypothesis",
    "alembic.command",
)
REWRITE: Final = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
OPTIONS: Final = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "-W", REWRITE)
POLL: Final = 0.01
"""Seconds."""
IDLE: Final = 2000
"""Looks at a process that does nothing after which it is taken to wait for what never comes: some twenty seconds."""
OUTPUT: Final = "output.txt"
KILLED, SURVIVED, TIMEOUT, BROKEN = "killed", "survived", "timeout", "broken"
NO_TESTS: Final = (pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.INTERNAL_ERROR)


@dataclass(eq=False)  # pytest keeps its plugins in sets
class _FirstFailure:
    """Tells through a pipe which test failed."""

    pipe: int

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self.pipe, f"{report.nodeid}\n".encode()[:4096])


def _load_libraries(modules: list[str]) -> None:
    """Load what the modules and pytest's plugins import, and forget everything of the copy itself."""
    for name in modules:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*OPTIONS, "--collect-only", "--rootdir", ".", empty])
    here = str(Path.cwd())
    own = [name for name, module in sys.modules.items() if (getattr(module, "__file__", None) or "").startswith(here)]
    for name in own:
        if name not in {__name__, "tools"}:
            del sys.modules[name]
    gc.freeze()  # collections in the forks need not look at all this


def _child(tests: list[str], cpu: int, pipe: int) -> None:
    """Run the tests and end with pytest's exit code; never returns."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    quiet, output = os.open(os.devnull, os.O_RDONLY), os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for wanted, descriptor in ((quiet, 0), (output, 1), (output, 2)):
        os.dup2(wanted, descriptor)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    code: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        code = pytest.main([*OPTIONS, "--basetemp", "tmp", *tests], plugins=[_FirstFailure(pipe)])
    except BaseException:  # noqa: BLE001 (whatever it is, this process must not go on as a second worker)
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _work(process: int) -> bytes:
    """What its processor time is written as, that of what it has waited for included; changes while it works."""
    try:
        said = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return str(time.monotonic()).encode()  # a system that does not tell: it may be at work
    return b" ".join(said.rpartition(b")")[2].split()[11:15])


def _run(tests: list[str], seconds: float) -> tuple[str, str]:
    """The verdict, and the test that gave it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(tests, int(seconds), writing)
    os.close(writing)
    told, known = b"", b""
    # Looks are counted, not the clock: on a machine that is busy or stands still they are as late as the tests.
    looks, last, worked = int(seconds / POLL), 0, 0
    ended, status = 0, 0
    try:
        while not ended and last < looks and last - worked < IDLE:
            time.sleep(POLL)
            last += 1
            if last % 100 == 0 and (work := _work(child)) != known:
                known, worked = work, last
            ended, status = os.waitpid(child, os.WNOHANG)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # and whatever a test has left behind
    if not ended:
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os.set_blocking(reading, False)
    with contextlib.suppress(BlockingIOError):
        told = os.read(reading, 4096)
    os.close(reading)
    by = told.decode(errors="replace").partition("\n")[0]
    if not ended or code in {-signal.SIGXCPU, -signal.SIGKILL}:
        return TIMEOUT, by
    if code in NO_TESTS:
        return BROKEN, Path(OUTPUT).read_text(encoding="utf-8", errors="replace")[-2000:]
    return (SURVIVED if code == 0 else KILLED), by


def main() -> None:
    """Answer each job until there are no more."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through every `finally`
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what else is printed is no answer
    _load_libraries(sys.argv[1:])
    for line in sys.stdin:
        job = json.loads(line)
        path = Path(job["path"])
        genuine = path.read_bytes()
        path.write_text(job["source"], encoding="utf-8")
        verdict, by = SURVIVED, ""
        try:
            for tests, seconds in job["stages"]:
                verdict, by = _run(tests, seconds)
                if verdict != SURVIVED:
                    break
        finally:
            path.write_bytes(genuine)
        print(json.dumps({"verdict": verdict, "by": by}), file=answers)


if __name__ == "__main__":
    main()
