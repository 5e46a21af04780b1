"""`sgpo profile` beside a run: import, export, servers, drift, predictions."""

import sys
from collections.abc import Sequence

from sgpo_jax.commands import (
    profile_drift,
    profile_export,
    profile_import,
    profile_predict,
    profile_server,
)

KINDS = {
    "drift": profile_drift,
    "import": profile_import,
    "export": profile_export,
    "predict": profile_predict,
    "server": profile_server,
}
"""Modules of the variants, by option."""

OPTIONS = {
    "drift": profile_drift.DriftOptions,
    "import": profile_import.ProfileImportOptions,
    "export": profile_export.ProfileExportOptions,
    "predict": profile_predict.PredictOptions,
    "server": profile_server.ServerProfileOptions,
}
"""Settings of the variants, by option."""


def main(kind: str, args: Sequence[str]) -> int:
    """Run the command; return its exit code.

    Args:
      kind: a key of `KINDS`.
      args: options of the command.
    """
    from sgpo_jax.commands.options import parse_dataclass
    from sgpo_jax.pipeline import UserError
    from sgpo_jax.rewards import UnscorableError, VerifierError
    from sgpo_jax.sampling import IncompleteError

    try:
        options = parse_dataclass(
            OPTIONS[kind], args, prog=f"sgpo profile --{kind} ..."
        )
        print(KINDS[kind].run(options))
    except (UserError, ValueError, VerifierError) as error:
        print(f"sgpo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (OSError, UnscorableError) as error:
        print(f"sgpo: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except IncompleteError as error:
        text = " ".join(str(error).split())
        print(f"sgpo: {text}; the same command resumes", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    return 0
