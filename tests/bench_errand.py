"""Workers for the tests of supervision, which need no torch: ``python -m bench_errand`` does what its job says."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from zoo.bench.workers.common import Channel

channel = Channel()
errand = channel.job["errand"]
channel.send("hello", pid=os.getpid())
if errand == "talk":
    print("this goes to standard error")
    os.write(1, b"and so does this\n")
    for number in range(3):
        channel.send("number", value=number)
elif errand == "raise":
    raise RuntimeError("the reason")
elif errand == "exit":
    os._exit(7)
elif errand == "half":
    channel._out.write('{"event": "number", "va')
    channel._out.flush()
    os._exit(7)
elif errand == "stay":
    print("the reason", file=sys.stderr)
    channel._out.close()
    time.sleep(600)
elif errand == "hang":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    channel.send("child", pid=child.pid)
    time.sleep(600)
elif errand == "grow":
    hoard = []
    while True:
        hoard.append(bytearray(b"x") * (8 * 2**20))
        time.sleep(0.02)
channel.send("done")
