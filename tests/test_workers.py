"""The decode processes: protocol, crash, hang, back-pressure, and how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from make_media import sound, write

from audiosearch.audio import decode, packet_hash
from audiosearch.chunk import SAMPLE_RATE, plan, stream_chunks
from audiosearch.config import Limits
from audiosearch.ingest import workers
from audiosearch.ingest.workers import ChunkReady, DecodePool, Done, Failed, Identified, Job


class InChild:
    """Stands for a Job; runs `code` in the child when it is received there."""

    def __init__(self, job, code):
        self.key, self.job, self.code = job.key, job, code

    def __reduce__(self):
        make = f"__import__('audiosearch.ingest.workers', fromlist=['Job']).Job({self.job.key}, {self.job.path!r})"
        return eval, (f"(exec({self.code!r}), {make})[1]",)


def run(pool, jobs, decide=lambda message: True, limit=60):
    """All messages of the jobs, by key."""
    found = {job.key: [] for job in jobs}
    waiting, deadline = list(jobs), time.monotonic() + limit
    while waiting or pool.busy:
        assert time.monotonic() < deadline
        while waiting and pool.free:
            pool.submit(waiting.pop(0))
        for message in pool.events(0.5):
            found[message.key].append(message)
            if isinstance(message, Identified):
                pool.answer(message.key, decide(message))
    return found


def long_file(tmp_path, seconds=600):
    return str(write(tmp_path / "long.wav", np.tile(sound(60, 8000), seconds // 60), 8000, codec="pcm_u8"))


@pytest.fixture
def pool():
    with DecodePool(1, limits=Limits(stall_seconds=60)) as pool:
        yield pool


def pids(pool):
    return [worker.process.pid for worker in pool._workers]


def test_what_comes_out_is_what_the_file_holds(tmp_path):
    paths = [str(write(tmp_path / f"{i}.wav", sound(2 + 6 * i, 22050, 1, seed=i), 22050)) for i in range(6)]
    (tmp_path / "text.wav").write_text("no sound " * 100)
    jobs = [Job(i, path) for i, path in enumerate(paths)] + [Job(6, str(tmp_path / "text.wav")), Job(7, "/none.wav")]
    with DecodePool(2) as pool:
        found = run(pool, jobs, decide=lambda message: message.key != 3)
        assert pool.free == 2
    for i, path in enumerate(paths):
        identified = found[i][0]
        assert isinstance(identified, Identified)
        assert identified.packet_hash == packet_hash(path)
        if i == 3:
            assert len(found[i]) == 1  # skipped
            continue
        chunks = [message.chunk for message in found[i][1:-1]]
        assert chunks == list(stream_chunks(decode(path)))
        assert all(chunk.samples is not None for chunk in chunks)
        done = found[i][-1]
        assert isinstance(done, Done)
        assert (done.n_chunks, done.warnings, done.changed) == (len(chunks), (), False)
        assert done.duration_seconds == pytest.approx(2 + 6 * i, abs=1e-3)
    assert found[6] == [Failed(6, "not-audio", "no sound in any known format")]
    assert [type(message) for message in found[7]] == [Failed]
    assert found[7][0].cause == "vanished"


def test_window_hop_and_a_file_that_changes(tmp_path, pool):
    path = write(tmp_path / "a.wav", sound(5, 16000), 16000)

    def touch(message):
        os.utime(path, ns=(1, 1))
        return True

    found = run(pool, [Job(1, str(path), window_seconds=2, hop_seconds=1)], touch)[1]
    spans = [(m.chunk.start_seconds, m.chunk.end_seconds) for m in found if isinstance(m, ChunkReady)]
    assert spans == [(a / SAMPLE_RATE, b / SAMPLE_RATE) for a, b in plan(80000, window_seconds=2, hop_seconds=1)]
    assert found[-1].changed


def test_a_child_imports_little(tmp_path, pool):
    path, listing = write(tmp_path / "a.wav", sound(1)), tmp_path / "modules"
    listing_code = f"import sys; open({str(listing)!r}, 'w').write(' '.join(sys.modules))"
    run(pool, [Job(1, str(path)), InChild(Job(2, str(path)), listing_code)])
    modules = set(listing.read_text().split())
    assert {"numpy", "av", "audiosearch.audio"} <= modules
    foreign = {"torch", "transformers", "faiss", "sqlalchemy", "alembic", "peft", "click", "scipy", "pytest", "yaml"}
    assert not modules & foreign
    ours = {name for name in modules if name.startswith("audiosearch.")}
    assert ours <= {
        f"audiosearch.{name}"
        for name in (
            "audio",
            "demux",
            "file_names",
            "metadata",
            "chunk",
            "config",
            "errors",
            "types",
            "ingest",
            "ingest.identity",
            "ingest.limits",
            "ingest.transport",
            "ingest.workers",
        )
    }


def test_a_crash_fails_one_file_only(tmp_path, pool):
    path = str(write(tmp_path / "a.wav", sound(1)))
    found = run(pool, [InChild(Job(1, path), "import os; os._exit(3)"), Job(2, path)])
    assert found[1] == [Failed(1, "crashed", "the decode process ended with code 3")]
    assert isinstance(found[2][-1], Done)

    def kill(message):
        os.kill(pids(pool)[0], signal.SIGKILL)
        return True

    found = run(pool, [Job(3, path)], kill)
    assert found[3][-1] == Failed(3, "crashed", "the decode process was ended by SIGKILL")
    assert isinstance(run(pool, [Job(4, path)])[4][-1], Done)


def test_a_worker_that_dies_while_idle_is_replaced(tmp_path, pool):
    path = str(write(tmp_path / "a.wav", sound(1)))
    run(pool, [Job(1, path)])
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGKILL)
    pool._workers[0].process.join(5)
    assert isinstance(run(pool, [Job(2, path)])[2][-1], Done)
    assert pids(pool) != [pid]


def test_an_unforeseen_exception_is_a_failure(tmp_path, pool):
    path = str(write(tmp_path / "a.wav", sound(1)))
    code = "import audiosearch.ingest.workers as w\ndef f(*a): raise KeyError('surprise')\nw.identify = f"
    found = run(pool, [InChild(Job(1, path), code)])
    assert found[1] == [Failed(1, "crashed", "KeyError: 'surprise'")]


@pytest.fixture
def clock(monkeypatch):
    """Sets the parent's clock forward: `clock(seconds)`."""
    ahead = 0.0

    def forward(seconds):
        nonlocal ahead
        ahead += seconds

    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead))
    return forward


def test_a_hang_is_given_up(tmp_path, pool, clock):
    path = str(write(tmp_path / "a.wav", sound(1)))
    pool.submit(InChild(Job(1, path), "import time; time.sleep(100)"))
    assert list(pool.events(0.1)) == []
    clock(59)
    assert list(pool.events(0.1)) == []
    clock(2)
    assert list(pool.events(5)) == [Failed(1, "too-slow", "no progress for file_stall_seconds = 60")]
    assert isinstance(run(pool, [Job(2, path)])[2][-1], Done)


def test_a_parent_that_takes_its_time_is_no_hang(tmp_path, pool, clock):
    path = str(write(tmp_path / "a.wav", sound(60, 16000), 16000))
    pool.submit(Job(1, path))
    assert isinstance(next(pool.events(30)), Identified)
    clock(1000)  # before it answers
    assert list(pool.events(0.1)) == []
    pool.answer(1, True)
    assert isinstance(next(pool.events(30)), ChunkReady)
    assert pool._workers[0].pipe.poll(30)
    clock(1000)  # while the child wants to send
    messages = []
    while pool.busy:
        messages += pool.events(30)
    assert isinstance(messages[-1], Done)


def test_the_child_waits_while_the_parent_does(tmp_path, pool):
    if not Path("/proc/self/status").exists():
        pytest.skip("reads /proc")
    path = long_file(tmp_path)
    pool.submit(Job(1, path))
    message = next(iter(pool.events(30)))
    pool.answer(1, True)
    first = next(iter(pool.events(30)))
    assert (type(message), type(first)) == (Identified, ChunkReady)
    time.sleep(0.5)
    (pid,) = pids(pool)
    spent = cpu_ticks(pid)
    time.sleep(0.5)
    assert cpu_ticks(pid) == spent
    resident = int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) // 1024
    assert resident < 120  # MiB; the decoded file is 37
    chunks = [first.chunk]
    while pool.busy:
        chunks += [message.chunk for message in pool.events(30) if isinstance(message, ChunkReady)]
    assert [c.start_seconds for c in chunks] == [a / SAMPLE_RATE for a, _ in plan(600 * SAMPLE_RATE)]


def cpu_ticks(pid):
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))


def test_events_return_in_time(tmp_path, pool):
    assert list(pool.events(5)) == []  # nothing under way: no waiting
    pool.submit(InChild(Job(1, str(tmp_path)), "import time; time.sleep(30)"))
    started = time.monotonic()
    assert list(pool.events(0)) == []
    assert list(pool.events(0.2)) == []
    assert time.monotonic() - started < 1.5


def test_closing_is_quick_and_leaves_no_one(tmp_path):
    path = long_file(tmp_path)
    pool = DecodePool(2)
    for key in (1, 2):
        pool.submit(Job(key, path))
    next(iter(pool.events(30)))
    processes = [worker.process for worker in pool._workers]
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 1
    assert not any(process.is_alive() for process in processes)


def test_ctrl_c_is_the_parents_business(tmp_path, pool):
    path = str(write(tmp_path / "a.wav", sound(1)))
    pool.submit(Job(1, path))  # while it starts, too
    for _ in range(5):
        os.kill(pids(pool)[0], signal.SIGINT)
        time.sleep(0.05)
    run_out(pool)
    before = pids(pool)
    os.kill(before[0], signal.SIGINT)
    assert isinstance(run(pool, [Job(2, path)])[2][-1], Done)
    assert pids(pool) == before


def run_out(pool):
    messages = []
    while pool.busy:
        for message in pool.events(30):
            messages.append(message)
            if isinstance(message, Identified):
                pool.answer(message.key, True)
    assert isinstance(messages[-1], Done)
    return messages


SCRIPT = """
import sys, time
from audiosearch.config import Limits
from audiosearch.ingest import workers
from audiosearch.ingest.workers import DecodePool, Identified, Job
print("started", flush=True)
pool = DecodePool(2)
for key, path in enumerate(sys.argv[1:]):
    pool.submit(Job(key, path))
while pool.busy:
    for message in pool.events(30):
        if isinstance(message, Identified):
            pool.answer(message.key, True)
            print("pids", *[worker.process.pid for worker in pool._workers], flush=True)
            if len(sys.argv) == 3:
                time.sleep(60)
pool.close()
print("finished", flush=True)
"""


def test_a_script_without_a_guard_runs_once(tmp_path):
    path, script = write(tmp_path / "a.wav", sound(1)), tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, path], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["started", "pids", "finished"]
    assert done.stderr == ""


def test_children_end_with_a_parent_that_is_killed(tmp_path):
    path, script = long_file(tmp_path), tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, script, path, path], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert parent.stdout.readline() == "started\n"
        children = [int(pid) for pid in parent.stdout.readline().split()[1:]]
        assert len(children) == 2
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in children):
        assert time.monotonic() < deadline, "a child outlives its parent"
        time.sleep(0.05)


def alive(pid):
    """Whether the process runs; one that has ended and whom nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
