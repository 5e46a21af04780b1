"""The processes of a run: who there is, what they agree on, and how they are stopped.

A run on one process and a run on many are the same code with another `Hosts` passed in.
Each process samples and scores a share of its own, so that processes are not in step
everywhere; they are in step wherever they meet:

* `poll` may be called anywhere, by one process more often than by another. It raises
  `Stopped` once this process or, on many, any other was asked to stop.
* `gather`, `tell` and `lead` are meetings: every process calls them in the same order.
  All leave a `gather` with the same answer, or all with `Stopped`, so that everyone
  stops after the same step, whoever got the signal.

A meeting waits for a bounded time and then raises `LostPeer`, naming who is missing. A
process that dies or stands still in a collective ends the others: see `watch`.
"""

from sgpo_jax.hosts.alone import Alone as Alone
from sgpo_jax.hosts.alone import Hosts as Hosts
from sgpo_jax.hosts.backends import start_backends as start_backends
from sgpo_jax.hosts.connect import DistributedConfig as DistributedConfig
from sgpo_jax.hosts.connect import work_on as work_on
from sgpo_jax.hosts.lock import FolderInUseError as FolderInUseError
from sgpo_jax.hosts.lock import folder_lock as folder_lock
from sgpo_jax.hosts.signals import RESTART as RESTART
from sgpo_jax.hosts.signals import Signals as Signals
from sgpo_jax.hosts.signals import Stopped as Stopped
from sgpo_jax.hosts.together import LostPeer as LostPeer
from sgpo_jax.hosts.together import Together as Together
from sgpo_jax.hosts.together import is_lost_peer as is_lost_peer
