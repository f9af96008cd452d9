"""``python -m export``, from its first moment: `export.cli` is imported where Ctrl-C is caught."""

import sys


def main() -> None:
    """Run `export.cli.main`; Ctrl-C before it can catch it ends as it does later."""
    try:
        from export import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit("Aborted!")


if __name__ == "__main__":
    main()
