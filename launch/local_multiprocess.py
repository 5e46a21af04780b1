"""A run on several processes of this machine, as it would be on several hosts.

    python launch/local_multiprocess.py 4 -- run --preset quick --out runs/four

Starts `sgpo` once per process, each with its share of nothing but CPU devices, on a
loopback port of its own. SIGTERM and interrupts are passed on. Exits with the code that
asks for most: a mistake or a fault (1, 2) before a restart (42) before 0; when one
process ends in a fault, the others are stopped.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

COMMAND = [sys.executable, "-c", "from sgpo_jax.cli import main; main()"]
GRACE = 120.0  # seconds the others get to notice, save and end


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(count: int, args: Sequence[str]) -> list[subprocess.Popen]:
    """Start the processes."""
    address = f"127.0.0.1:{free_port()}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            [
                *COMMAND,
                *args,
                *("--distributed.coordinator", address),
                *("--distributed.processes", str(count)),
                *("--distributed.process", str(index)),
            ],
            env=env,
        )
        for index in range(count)
    ]


def wait(processes: Sequence[subprocess.Popen]) -> int:
    """Wait for all; once one has failed, the others get a while to end."""
    failed_at = None
    while any(process.poll() is None for process in processes):
        codes = [process.poll() for process in processes]
        if failed_at is None and any(codes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            for process in processes:
                process.kill()
        time.sleep(0.1)
    codes = [process.wait() for process in processes]
    # Killed by a signal, as a preempted machine is: start again.
    codes = [42 if code < 0 else code for code in codes]
    return next((code for code in codes if code not in (0, 42)), max(codes))


def main(argv: Sequence[str]) -> int:
    """Run; returns an exit code of `sgpo`."""
    if len(argv) < 3 or not argv[0].isdecimal() or argv[1] != "--":
        print(__doc__, file=sys.stderr)
        return 2
    processes = start(int(argv[0]), argv[2:])

    def forward(number, frame):
        del frame
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    return wait(processes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
