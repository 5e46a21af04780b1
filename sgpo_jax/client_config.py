"""Limits of the client of inference servers, for several commands."""

import dataclasses
import os

from sgpo_jax.bounds import Count, Seconds, Size, bounded


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ClientLimits:
    """Limits of the HTTP client.

    Attributes:
      concurrency: HTTP requests in flight at once.
      timeout: most seconds of one of them.
      attempts: how often one is tried.
      token: name of the environment variable with an access token; empty for none.
    """

    concurrency: Size = 64
    timeout: Seconds = 600.0
    attempts: Count = 6
    token: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the token.

        Raises:
          ValueError: if it is not in the environment.
        """
        if not self.token:
            return {}
        if not os.environ.get(self.token):
            raise ValueError(f"the environment has no {self.token}")
        return {"Authorization": f"Bearer {os.environ[self.token]}"}
