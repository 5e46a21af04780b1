"""The stages of a run, over one folder."""

from sgpo_jax.pipeline.display import Display as Display
from sgpo_jax.pipeline.folder import RunFolder as RunFolder
from sgpo_jax.pipeline.folder import UserError as UserError
from sgpo_jax.pipeline.folder import first_stage as first_stage
from sgpo_jax.pipeline.folder import open_folder as open_folder
from sgpo_jax.pipeline.run import Run as Run
from sgpo_jax.pipeline.run import open_policy as open_policy
from sgpo_jax.pipeline.run import open_run as open_run
