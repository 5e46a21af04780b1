"""`python -m sgpo_jax` is `sgpo`."""

from sgpo_jax.cli import main

if __name__ == "__main__":
    main()
