"""The command `lcc`; also `python -m lcc`, which is how torchrun starts it."""

import sys

from lcc import env
from lcc.errors import MissingPackageError


def main() -> None:
    """Run the command line, or say what to install where its packages are missing."""
    try:
        with env.needs_extra("cli"):
            from lcc import cli
    except MissingPackageError as error:
        print(f"lcc: error: {error}", file=sys.stderr)
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
