"""Process groups of a multi-host run: collectives, barriers and orderly stops.

A run on one process and a run on many are the same code with another `ProcessGroup`
passed in. Each process samples and scores a share of its own, so processes are not in
step everywhere; they are in step at barriers:

* `poll` may be called anywhere, by one process more often than by another. It raises
  `Stopped` once this process or, on many, any other was asked to stop.
* `gather`, `broadcast` and `on_main_process` are collectives with a barrier: every
  process calls them in the same order. All leave a `gather` with the same result, or
  all with `Stopped`, so all stop after the same step, whoever got the signal.

A barrier times out with `LostPeer`, which names the missing process. A process that
dies or hangs in a collective ends the others: see `watch`.
"""

from sgpo_jax.hosts.backends import start_backends as start_backends
from sgpo_jax.hosts.connect import DistributedConfig as DistributedConfig
from sgpo_jax.hosts.connect import work_on as work_on
from sgpo_jax.hosts.lock import FolderInUseError as FolderInUseError
from sgpo_jax.hosts.lock import folder_lock as folder_lock
from sgpo_jax.hosts.multi_process import LostPeer as LostPeer
from sgpo_jax.hosts.multi_process import MultiProcess as MultiProcess
from sgpo_jax.hosts.multi_process import is_lost_peer as is_lost_peer
from sgpo_jax.hosts.signals import RESTART as RESTART
from sgpo_jax.hosts.signals import Signals as Signals
from sgpo_jax.hosts.signals import Stopped as Stopped
from sgpo_jax.hosts.single_process import ProcessGroup as ProcessGroup
from sgpo_jax.hosts.single_process import SingleProcess as SingleProcess
