"""``python -m cli.tether PARENT COMMAND...``: becomes the command, which the kernel kills when its parent exits.

Killing is safe for all processes of ``lamanas serve``: accepted requests are on the disk, and leases recover the work.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # prctl(2); kept across exec


def command(parent: int, words: Sequence[str]) -> list[str]:
    """The command to start in the process ``parent`` so that these words run tethered to it."""
    return [sys.executable, "-m", "cli.tether", str(parent), *words]


def main() -> None:
    parent, words = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it exited before the call
        sys.exit(1)
    os.execvp(words[0], words)  # noqa: S606


if __name__ == "__main__":
    main()
