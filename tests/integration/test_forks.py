"""Workers are forked from a template: as processes they are what a new interpreter would be."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testkit.command import environment, report, started, write_cases, write_eval
from testkit.provider.server import Provider
from testkit.provider.wire import always
from testkit.waiting import wait_until
from tests.integration.test_run import children_of, results

if sys.platform != "linux":
    pytest.skip("forks are made on Linux only; elsewhere workers are spawned", allow_module_level=True)

# a process that asks a template for children: MAIN runs in them, ASK here
ASKER = """
import json, os, select, signal, subprocess, sys, threading, time
from pathlib import Path
from queue_eval.local.forks import Template
def begin(): Path(f"begun-{{os.getpid()}}").touch()
def begun(*children):
    until = time.monotonic() + 30
    while not all(Path(f"begun-{{child.pid}}").exists() for child in children):
        assert time.monotonic() < until
        time.sleep(0.005)
def main():
{main}
inherited = os.open("/dev/null", os.O_RDONLY)
def start(template, *arguments, more={{}}, cwd=None):
    return template.start(arguments, environment={{**os.environ, **more}}, streams=(0, 1, 2), cwd=cwd)
{ask}
"""


def ask(main: str, ask: str, cwd: Path) -> str:
    script = ASKER.format(main="".join(f"    {line}\n" for line in main.strip().splitlines()), ask=ask)
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


DESCRIBE = """
facts = {"arguments": sys.argv[1:], "cwd": os.getcwd(), "variable": os.environ.get("V"), "home": "HOME" in os.environ,
    "open": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")),
    "leader": os.getsid(0) == os.getpid(), "shown": open("/proc/self/cmdline").read().rstrip(chr(0)).split(chr(0))}
print(json.dumps(facts))
"""


def test_a_fork_has_its_own_arguments_environment_folder_streams_and_session(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    printed = ask(
        DESCRIBE,
        """
with Template.forked(main) as template:
    environment = {"V": "x" * 1_000_000, "PATH": os.environ["PATH"]}
    child = template.start(["a", "b c"], environment=environment, streams=(0, 1, 2), cwd=Path("there"))
    assert child.wait(30) == 0
""",
        tmp_path,
    )
    facts: dict[str, Any] = json.loads(printed)
    assert facts == {
        "arguments": ["a", "b c"],
        "cwd": str(tmp_path / "there"),
        "variable": "x" * 1_000_000,
        "home": False,
        "open": [0, 1, 2],  # nothing that the template or the asking process had open
        "leader": True,
        "shown": ["queue-eval", "a", "b c"],
    }


@pytest.mark.parametrize(
    ("main", "code"),
    [
        ("pass", 0),
        ("sys.exit(75)", 75),
        ("raise SystemExit", 0),
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("sys.stderr = open(os.devnull, 'w'); 1 / 0", os.EX_SOFTWARE),
    ],
)
def test_the_exit_code_of_a_fork_is_its_own(tmp_path: Path, main: str, code: int) -> None:
    printed = ask(main, "with Template.forked(main) as template: print(start(template).wait(30))", tmp_path)
    assert int(printed) == code


def test_a_sigterm_before_the_command_has_a_handler_ends_a_fork_with_75(tmp_path: Path) -> None:
    """At whatever moment after the fork: many children, each signalled at once."""
    printed = ask(
        "time.sleep(30)",
        """
codes = []
with Template.forked(main) as template:
    for _ in range(50):
        child = start(template)
        child.send_signal(signal.SIGTERM)
        codes.append(child.wait(30))
print(json.dumps(codes))
""",
        tmp_path,
    )
    assert json.loads(printed) == [os.EX_TEMPFAIL] * 50


def test_a_signal_never_reaches_another_process_that_got_the_pid(tmp_path: Path) -> None:
    """A child that has ended keeps its pid until its end was read, and after that no signal is sent."""
    printed = ask(
        "pass",
        """
with Template.forked(main) as template:
    child = start(template)
    state = lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]
    select.select([template._control], [], [], 30)  # the report of its end is there, and was not read
    kept = state()
    child.send_signal(signal.SIGKILL)
    print(json.dumps([kept, child.returncode]))
    while Path(f"/proc/{child.pid}").exists(): time.sleep(0.01)
    signal.pidfd_send_signal = None
    child.send_signal(signal.SIGKILL)
""",
        tmp_path,
    )
    assert json.loads(printed) == ["Z", 0]


def test_a_child_that_runs_longer_than_it_is_waited_for(tmp_path: Path) -> None:
    printed = ask(
        "time.sleep(30)",
        """
with Template.forked(main) as template:
    child = start(template)
    assert child.poll() is None
    try: child.wait(0.1)
    except subprocess.TimeoutExpired: print("runs")
""",
        tmp_path,
    )
    assert printed == "runs\n"


def test_a_template_that_is_killed_takes_its_children_along_and_is_known_to_be_lost(tmp_path: Path) -> None:
    printed = ask(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); begin(); signal.pause()",
        """
template = Template.forked(main)
children = [start(template) for _ in range(3)]
begun(*children)
os.kill(template.pid, signal.SIGKILL)
codes = [child.wait(30) for child in children]
again = start(template)
while any(Path(f"/proc/{child.pid}").exists() for child in children): time.sleep(0.01)
template.__exit__()
print(json.dumps([codes, again, template.lost]))
""",
        tmp_path,
    )
    assert json.loads(printed) == [[-signal.SIGTERM] * 3, None, True]


def test_where_the_asking_process_dies_nothing_of_it_goes_on(tmp_path: Path) -> None:
    script = ASKER.format(
        main="    begin(); signal.pause()",
        ask="""
template = Template.forked(main)
child = start(template)
begun(child)
print(template.pid, child.pid, flush=True)
signal.pause()
""",
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as asker:
        assert asker.stdout
        pids = asker.stdout.readline().split()
        asker.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), within_s=10)


def test_a_sigterm_to_all_processes_at_once_does_not_end_the_template(tmp_path: Path) -> None:
    """As systemd sends it to a service. The template reports how its children end."""
    printed = ask(
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), os._exit(7))); begin(); time.sleep(30)",
        """
with Template.forked(main) as template:
    child = start(template)
    begun(child)
    for pid in (template.pid, child.pid): os.kill(pid, signal.SIGTERM)
    os.kill(template.pid, signal.SIGINT)
    print(json.dumps([child.wait(30), template.lost, start(template) is not None]))
""",
        tmp_path,
    )
    assert json.loads(printed) == [7, False, True]


def test_children_of_a_lost_template_are_seen_to_their_end_and_can_be_killed(tmp_path: Path) -> None:
    printed = ask(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); begin(); time.sleep(60)",
        """
with Template.forked(main) as template:
    child = start(template)
    begun(child)
    os.kill(template.pid, signal.SIGKILL)
    again = start(template)
    running = child.poll()
    child.send_signal(signal.SIGKILL)
    print(json.dumps([again, running, child.wait(30) < 0]))
""",
        tmp_path,
    )
    assert json.loads(printed) == [None, None, True]


def test_a_template_that_stands_still_is_not_waited_for(tmp_path: Path) -> None:
    """Stopped, or swapped out: what it would fork is started otherwise, and its children are known to have ended."""
    printed = ask(
        "begin(); time.sleep(60)",
        """
with Template.forked(main) as template:
    children = [start(template), start(template)]
    begun(*children)
    os.kill(template.pid, signal.SIGSTOP)
    children[0].send_signal(signal.SIGKILL)
    print(json.dumps([children[0].wait(30) < 0, start(template), children[1].wait(30) < 0]))
""",
        tmp_path,
    )
    assert json.loads(printed) == [True, None, True]


def test_a_fork_that_is_refused_leaves_the_others_alone(tmp_path: Path) -> None:
    printed = ask(
        "time.sleep(1)",
        """
import resource
def no_fork(): raise BlockingIOError(11, "no more processes")
fork = os.fork
os.fork = lambda: (os.__dict__.__setitem__("fork", once), fork())[1]  # the first makes the template
calls = []
def once():
    calls.append(1)
    return no_fork() if len(calls) == 2 else fork()
with Template.forked(main) as template:
    first = start(template)
    try: start(template)
    except BlockingIOError as error: print("refused", error.errno)
    third = start(template)
    print(first.wait(30), third.wait(30), template.lost)
""",
        tmp_path,
    )
    assert printed.splitlines() == ["refused 11", "0 0 False"]


def test_a_fork_waits_for_its_threads_as_an_interpreter_does(tmp_path: Path) -> None:
    printed = ask(
        """
def late():
    time.sleep(0.3)
    print("written")
threading.Thread(target=late).start()
""",
        "with Template.forked(main) as template: print(start(template).wait(30))",
        tmp_path,
    )
    assert sorted(printed.split()) == ["0", "written"]


def test_where_ended_children_are_ignored_a_run_ends_as_elsewhere(tmp_path: Path, provider: Provider) -> None:
    """A parent that ignores SIGCHLD hands that on."""
    write_cases(tmp_path, 3)
    path = write_eval(tmp_path, provider.url, workers={"processes": 2})
    script = f"import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.executable, [sys.executable, '-m', 'queue_eval', 'run', {str(path)!r}])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_beside_another_thread_nothing_is_forked(tmp_path: Path) -> None:
    printed = ask(
        "pass",
        """
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
print(Template.forked(main))
stop.set()
""",
        tmp_path,
    )
    assert printed == "None\n"


def test_what_is_registered_for_the_end_of_a_fork_runs_once_and_the_parents_does_not(tmp_path: Path) -> None:
    printed = ask(
        "import atexit; atexit.register(print, 'of the child'); print('works')",
        """
import atexit
atexit.register(print, "of the parent")
with Template.forked(main) as template:
    start(template).wait(30)
""",
        tmp_path,
    )
    assert printed.splitlines() == ["works", "of the child", "of the parent"]


def test_a_run_whose_template_is_killed_goes_on_with_new_workers(tmp_path: Path, provider: Provider) -> None:
    provider.latency = always(0.3)
    write_cases(tmp_path, 30)
    path = write_eval(tmp_path, provider.url, workers={"processes": 2, "concurrency": 3, "lease_s": 1.5, "grace_s": 2})
    run = started("run", path, "--run-id", "r1", cwd=tmp_path)
    wait_until(lambda: (tmp_path / "runs/r1/results").is_dir() and results(tmp_path, "r1") >= 3, within_s=60)
    (template,) = (pid for pid in children_of(run.pid) if children_of(pid))
    os.kill(template, signal.SIGKILL)
    _, err = run.communicate(timeout=90)
    assert run.returncode == 0, err
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["dead"], accounting["missing"]) == (30, 0, 0)
    assert accounting["judge_calls"] == provider.admitted  # the stopped workers recorded their calls
