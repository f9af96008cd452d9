"""The `cortex` command, from its first moment: `cortex.cli` is imported where Ctrl-C is caught."""

import sys


def main() -> int:
    """Run `cortex.cli.main`, and return its exit code."""
    try:
        from cortex import cli

        return cli.main()
    except KeyboardInterrupt:
        return 1


if __name__ == "__main__":
    sys.exit(main())
