"""What programs in Python commonly ask of the kernel; says "all done" if it got it."""

import asyncio
import concurrent.futures
import fcntl
import mmap
import multiprocessing
import os
import resource
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time


def square(number):
    return number * number


def echo_server(listener):
    peer, _ = listener.accept()
    with peer:
        peer.sendall(peer.recv(100))


def threads():
    results = []
    some = [threading.Thread(target=lambda n=n: results.append(n)) for n in range(20)]
    for thread in some:
        thread.start()
    for thread in some:
        thread.join()
    assert sorted(results) == list(range(20))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


def processes():
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    said = subprocess.run(["sh", "-c", "cat; exit 3"], input=b"in", capture_output=True)
    assert (said.stdout, said.returncode) == (b"in", 3)
    child = os.posix_spawn("/bin/true", ["true"], {})
    assert os.waitpid(child, 0)[1] == 0
    shared = multiprocessing.Value("i", 0)
    assert shared.value == 0


async def loop():
    child = await asyncio.create_subprocess_exec("echo", "hi", stdout=subprocess.PIPE)
    assert (await child.communicate())[0] == b"hi\n"
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    server.close()


def sockets():
    assert socket.getaddrinfo("localhost", 80)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=echo_server, args=(listener,))
    thread.start()
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"ping")
        assert client.recv(100) == b"ping"
    thread.join()
    left, right = socket.socketpair()
    left.send(b"x")
    assert select.select([right], [], [], 10)[0]


def files():
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "file")
        with open(path, "wb+") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX)
            with mmap.mmap(file.fileno(), 4096) as mapped:
                assert mapped[:1] == b"x"
        reader, writer = os.pipe()
        assert fcntl.fcntl(writer, 1032) >= 4096  # F_GETPIPE_SZ
        os.close(reader)
        os.close(writer)
        os.mkfifo(os.path.join(place, "fifo"))
        os.rename(path, path + "2")
        # By sendfile(2), if that works.
        shutil.copyfile(path + "2", path + "3")
        left, right = socket.socketpair()
        with open(path + "3", "rb") as file:
            assert left.sendfile(file) == 4096
        assert len(right.recv(9999)) == 4096
        os.sync()
        database = sqlite3.connect(os.path.join(place, "db"))
        database.execute("create table t (n)")
        database.execute("insert into t values (1)")
        database.commit()


def rest():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    signal.pause()
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.nice(1)
    time.monotonic_ns()
    os.getrandom(8)
    if hasattr(os, "memfd_create"):
        try:
            os.close(os.memfd_create("m"))
        except OSError as error:
            assert "memfd" and error.errno == 38
    if hasattr(os, "pidfd_open"):
        os.close(os.pidfd_open(os.getpid()))
    if hasattr(os, "forkpty"):
        pid, terminal = os.forkpty()
        if pid == 0:
            os._exit(0 if os.isatty(0) else 1)
        assert os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    threads()
    processes()
    asyncio.run(loop())
    sockets()
    files()
    rest()
    print("all done", sys.version_info[:2])
