"""`sgpo profile` beside a run: import, export, profiling by a server, drift."""

import sys
from collections.abc import Sequence

from sgpo_jax.commands import (
    profile_drift,
    profile_export,
    profile_import,
    profile_server,
)

KINDS = {
    "drift": profile_drift,
    "import": profile_import,
    "export": profile_export,
    "server": profile_server,
}
"""By the option that asks for it."""


def main(kind: str, args: Sequence[str]) -> int:
    """Run the command; return its exit code.

    Args:
      kind: a key of `KINDS`.
      args: options of the command.
    """
    from sgpo_jax.commands.options import parse_dataclass
    from sgpo_jax.pipeline import UserError
    from sgpo_jax.rewards import UnscorableError, VerifierError

    command = KINDS[kind]
    try:
        options = parse_dataclass(
            command.Options, args, prog=f"sgpo profile --{kind} ..."
        )
        print(command.run(options))
    except (UserError, ValueError, VerifierError) as error:
        print(f"sgpo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (OSError, UnscorableError) as error:
        print(f"sgpo: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    return 0
