"""Python processes that begin where importing torch ends: ``Popen`` and ``run`` as in :mod:`subprocess`.

To import torch takes a process two to three seconds, and the tests start a hundred. Here one process imports it and
what else takes long, and then splits itself for every ``python -m MODULE``, ``python -c CODE`` or ``python FILE`` that
is asked for. What comes out is a process of its own, with its signals, group, exit code, memory, streams, folder,
environment and import path. Only its beginning is not that of ``python``, which is why some tests start theirs with
:mod:`subprocess` all the same. So does every system but Linux, and every other command.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
import weakref
from pathlib import Path
from subprocess import PIPE, CompletedProcess, SubprocessError, TimeoutExpired
from typing import Any

__all__ = ["PIPE", "CompletedProcess", "Popen", "SubprocessError", "TimeoutExpired", "run"]

# What workers and commands need most, and what takes longest: torch, scikit-image for SSIM, torch-fidelity, and what
# runs and trainings begin with.
_PRELOADED = (
    *("torch", "zoo.cli", "zoo.images", "zoo.stylizer", "zoo.metrics.ssim", "torch_fidelity"),
    *("zoo.bench.run", "zoo.report.files", "zoo.training.trainer"),
)
# What pytest's own processes import besides, to collect the tests; imported where they are split off too.
whole_suite = False
_COLLECTED = ("gradio", "timm", "scipy.stats", "pandas", "lightning_fabric", "hypothesis", "skimage.color", "httpx")
_LARGEST = 200_000
_home: int | None = None  # in a process that was ordered: the group of the process that splits itself
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Popen(subprocess.Popen[Any]):
    """As ``subprocess.Popen``; a Python process begins with torch imported, and a pipe tells how it ended."""

    _told: int | None = None

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any,
                       env: Any, startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int,
                       c2pread: int, c2pwrite: int, errread: int, errwrite: int, *rest: Any) -> None:  # fmt: skip
        python = not isinstance(args, (str, bytes, os.PathLike)) and args[0] == sys.executable
        # What a split process starts belongs to that one's group, unless it gets a session of its own.
        foreign = _home is not None and _home != os.getpgid(0) and not rest[-2]
        if not python or preexec_fn or pass_fds or foreign or sys.platform != "linux":
            return super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest,
            )  # fmt: skip
        self._told, tell = os.pipe()
        order = {
            "command": [os.fspath(word) for word in args[1:]],
            "cwd": os.fspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "session": rest[-2],
        }
        streams = [own if own != -1 else standard for standard, own in enumerate((p2cread, c2pwrite, errwrite))]
        self._server = _server()
        socket.send_fds(self._server, [json.dumps(order).encode()], [*streams, tell])
        os.close(tell)
        self.pid = int.from_bytes(os.read(self._told, 4), "little")
        if not self.pid:
            raise OSError("the process of tests/forked.py has ended")
        self._child_created = self._closed_child_pipe_fds = True
        for theirs, ours in ((p2cread, p2cwrite), (c2pwrite, c2pread), (errwrite, errread)):
            if ours != -1:
                os.close(theirs)

    def _internal_poll(self, _deadstate: Any = None, *_: Any) -> int | None:  # also called by __del__
        return super()._internal_poll(_deadstate) if self._told is None else self._hear(0)  # type: ignore[misc]

    def _wait(self, timeout: float | None) -> int:
        if self._told is None:
            return super()._wait(timeout)  # type: ignore[misc]
        if self._hear(timeout) is None:
            raise TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def _hear(self, timeout: float | None) -> int | None:
        with self._waitpid_lock:
            if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
                self.returncode = int.from_bytes(os.read(self._told, 4), "little", signed=True)
                os.close(self._told)
                # Until it is asked for, the dead process keeps its number, as the system's children do.
                with contextlib.suppress(OSError):
                    self._server.send(json.dumps({"reap": self.pid}).encode())
        return self.returncode


def run(
    command: Any, *, input: Any = None, capture_output: bool = False, timeout: float | None = None,
    check: bool = False, **options: Any,
) -> CompletedProcess[Any]:  # fmt: skip
    """As ``subprocess.run``."""
    if input is not None:
        options["stdin"] = PIPE
    if capture_output:
        options |= {"stdout": PIPE, "stderr": PIPE}
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


@functools.cache
def _server() -> socket.socket:
    """The line to the process that splits itself, started at the first order."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _LARGEST)
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno()), str(ours.fileno()), json.dumps(sys.path)]
        + ["whole suite"] * whole_suite,
        stdin=PIPE,  # its end is that of this process
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno(), ours.fileno()],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | dict.fromkeys(_THREADS, "1"),
    )
    theirs.close()

    def end() -> None:
        process.communicate()
        ours.close()

    atexit.register(end)
    return ours


def _serve(line: socket.socket) -> dict[str, Any] | None:
    """Split for every order; the order in a child, None when standard input ends and no more will come."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: dict[int, int] = {}  # the pipe of every child whose end is not told
    while True:
        ready, _, _ = select.select([line, woken, 0], [], [])
        if 0 in ready:
            return None
        if woken in ready:
            os.read(woken, 4096)
            for pid in list(running):
                ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is not None:
                    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                    with contextlib.suppress(BrokenPipeError):
                        os.write(running[pid], code.to_bytes(4, "little", signed=True))
                    os.close(running.pop(pid))
        if line not in ready:
            continue
        data, fds, _, _ = socket.recv_fds(line, _LARGEST, 4)
        order = json.loads(data)
        if "reap" in order:
            os.waitpid(order["reap"], 0)
            continue
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if order["session"]:
                os.setsid()
            for standard in range(3):
                os.dup2(fds[standard], standard)
            os.write(fds[3], os.getpid().to_bytes(4, "little"))
            for fd in (*fds, *running.values(), woken, wake):
                os.close(fd)
            line.close()
            return order
        running[pid] = fds.pop()
        for fd in fds:
            os.close(fd)


def _become(order: dict[str, Any], base: list[str]) -> None:
    """Go on as the process that was ordered. Raises whatever its code raises, SystemExit too."""
    # What the first process is to clean up at its end (torch 2.6 holds a temporary folder) is not this one's.
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    tempfile.tempdir = None  # asked for anew
    # Made anew, because what they write to is no longer what they were made for.
    encoding, _, errors = order["env"].get("PYTHONIOENCODING", "").partition(":")
    how = {"encoding": encoding or None, "closefd": False}
    sys.stdin = sys.__stdin__ = open(0, errors=errors or None, **how)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", errors=errors or None, **how)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", errors="backslashreplace", buffering=1, **how)  # noqa: SIM115
    words = order["command"]
    while words[0] in ("-u", "-B", "-W"):
        if words[0] == "-W":
            assert words.pop(1) == "error"
            warnings.simplefilter("error")
        words = words[1:]
    first = {"-m": order["cwd"], "-c": ""}.get(words[0], os.path.dirname(words[0]))
    paths = [part for part in order["env"].get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = dict.fromkeys([first, *paths, *base])
    sys.path_importer_cache.clear()
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    else:
        assert words[0].endswith(".py"), words
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _main() -> None:
    theirs, ours = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    base = sys.path[1:]
    sys.path[:] = json.loads(sys.argv[3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch-fidelity's, of packages that it uses
        for name in (*_PRELOADED, *(_COLLECTED if sys.argv[4:] else ())):
            with contextlib.suppress(ImportError):  # some are of extras
                importlib.import_module(name)
    if _threads() > 1 and sys.argv[4:]:  # some version of one of them starts a thread
        os.execv(sys.executable, [sys.executable, *sys.argv[:4]])
    import forked

    # What is split from here orders its own processes here too.
    forked._server = lambda: ours
    forked._home = os.getpgid(0)
    subprocess.Popen = forked.Popen  # type: ignore[misc]
    assert _threads() == 1, "a process of several threads must not split itself"
    gc.freeze()
    order = _serve(theirs)
    if order is not None:
        _become(order, base)


if __name__ == "__main__":
    _main()
