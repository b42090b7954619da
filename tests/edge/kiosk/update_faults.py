"""Runs ``update.py`` and stops it, or fills the disk, before one of its operations.

``FAULTS=kill:12`` ends the process by SIGKILL before its 12th operation, as a power cut would;
``FAULTS=full:12`` lets that operation and all later writes fail because the disk is full.
``FAULTS=count:FILE`` writes the number of operations to a file. The operations are those that
Python reports to an audit hook: nothing in ``update.py`` helps.
"""

import atexit
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

WRITES = {"os.mkdir", "os.symlink", "os.link"}
OTHERS = {"os.rename", "os.remove", "subprocess.Popen", "shutil.rmtree"}


def main() -> None:
    kind, _, value = os.environ["FAULTS"].partition(":")
    root = os.environ["DESTDIR"]
    count = 0
    if kind == "count":
        atexit.register(lambda: Path(value).write_text(str(count)))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event in WRITES
        if event == "open":
            flags = arguments[2]
            writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            writes = writes and str(arguments[0]).startswith(root)
        if not writes and event not in OTHERS:
            return
        if event == "os.remove" and "dir_fd" in str(arguments):
            return
        count += 1
        if kind == "kill" and count == int(value):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "full" and count >= int(value) and writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    script, *sys.argv[1:] = sys.argv[1:]
    source = compile(Path(script).read_text(), script, "exec")
    sys.addaudithook(hook)
    exec(source, {"__name__": "__main__", "__file__": script})


main()
