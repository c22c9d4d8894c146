"""`python -m denature` and the `denature` command."""

import sys


def main() -> None:
    from denature.cli.app import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
