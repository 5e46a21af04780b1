"""One process of a run of barriers alone; see test_multi_process.py."""

import pathlib
import sys
import time

from sgpo_jax import hosts


def main(address: str, index: int, folder: str, patience: int) -> int:
    config = hosts.DistributedConfig(
        coordinator=address,
        processes=2,
        process=index,
        heartbeat_timeout=3,
        barrier_timeout=patience,
    )

    def work(everyone: hosts.ProcessGroup) -> int:
        for number in range(10_000):
            try:
                found = everyone.gather(lambda: bytes(everyone.index + 1))
            except hosts.Stopped:
                return hosts.RESTART
            assert [len(x) for x in found] == [1, 2]
            if number == 3:
                (pathlib.Path(folder) / f"met.{index}").touch()
            if (pathlib.Path(folder) / f"fault.{index}").exists():
                raise ZeroDivisionError
            time.sleep(0.02)
        return 0

    return hosts.work_on(config, work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
