import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from catdog.base import parallel
from catdog.base.errors import UserError

DEADLY = {9, 10, 41}
ITEMS = 300


def double(item: int) -> int:
    return 2 * item


def double_or_die(item: int) -> int:
    if item in DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def double_or_raise(item: int) -> int:
    if item in DEADLY:
        raise ValueError(f"not {item}")
    return 2 * item


def negative(item: int) -> int:
    return -item


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(workers):
    assert list(parallel.chunked_map(double, iter(range(ITEMS)), workers=workers)) == [2 * i for i in range(ITEMS)]


def test_nothing_to_do():
    assert list(parallel.chunked_map(double, [], workers=1)) == []


@pytest.mark.parametrize(("items", "dawdle_at"), [(range(20), None), (range(30, 50), 66)])
def test_items_that_kill_their_worker_are_rescued_and_no_others(items, dawdle_at, monkeypatch):
    monkeypatch.setattr(parallel, "_CHUNK", 4)
    results = []
    for result in parallel.chunked_map(double_or_die, items, workers=1, rescue=negative):
        if result == dawdle_at:
            # Meanwhile the worker dies, and the pool is found broken when it is given more to do.
            time.sleep(1.5)
        results.append(result)
    assert results == [-i if i in DEADLY else 2 * i for i in items]


def test_without_a_rescue_a_dead_worker_is_an_error():
    with pytest.raises(UserError, match=r"killed.*run it again$"):
        list(parallel.chunked_map(double_or_die, range(ITEMS), workers=1))


def test_an_exception_of_the_function_is_passed_on():
    found = parallel.chunked_map(double_or_raise, range(ITEMS), workers=1, rescue=negative)
    with pytest.raises(ValueError, match="not 9"):
        list(found)


def test_only_a_few_items_are_under_way():
    taken = []

    def items():
        for item in range(100_000):
            taken.append(item)
            yield item

    ahead = []
    results = parallel.chunked_map(double, items(), workers=2)
    for count, _ in zip(range(1, 1501), results, strict=False):
        ahead.append(len(taken) - count)
    results.close()
    assert max(ahead) < 320  # five chunks of 32 per worker
    assert len(taken) < 2000


def test_jobs_run_together_and_their_results_keep_their_order():
    begun = [threading.Event() for _ in range(2)]

    def job(number: int) -> int:
        begun[number].set()
        assert begun[1 - number].wait(20)  # the other one has begun too
        return number

    assert parallel.together(partial(job, 0), partial(job, 1)) == [0, 1]


def test_the_error_of_a_job_is_raised_when_the_others_have_ended():
    ended = []

    def late() -> None:
        time.sleep(0.2)
        ended.append(True)

    with pytest.raises(ValueError, match="not 9"):
        parallel.together(partial(double_or_raise, 9), late)
    assert ended == [True]


def which_main(item: int) -> str:
    return getattr(sys.modules["__main__"], "__file__", "none")


def test_workers_do_without_the_script_that_was_started(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_parallel import which_main\nfrom catdog.base import parallel\n"
        "print('script runs as', __name__)\n"
        "if __name__ == '__main__':\n"
        "    print(*parallel.chunked_map(which_main, range(2), workers=1))\n"
        "    print(__file__, __spec__)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    first, in_workers, afterwards = done.stdout.splitlines()
    assert first == "script runs as __main__"
    assert in_workers == "none none"
    assert afterwards == f"{script} None"


def test_workers_end_with_a_parent_that_is_killed():
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import multiprocessing
from test_parallel import double
from catdog.base import parallel
from catdog.base.errors import UserError
for _ in parallel.chunked_map(double, range(10_000), workers=2):
    pids = [child.pid for child in multiprocessing.active_children()]
    if len(pids) == 2:
        print(*pids, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    # The workers have the pipe too, so its end is not waited for.
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert parent.wait() == -signal.SIGKILL
    assert len(workers) == 2
    try:
        until = time.monotonic() + 20
        while any(map(alive, workers)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(map(alive, workers))
    finally:
        for pid in filter(alive, workers):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Where nobody waits for orphans, one that ended is still listed.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
