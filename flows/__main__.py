"""`gptmill` and `python -m flows`: light to import, for each worker imports the module that was started once more."""

import sys


def main() -> int:
    """Run the command that the arguments name and return its exit code."""
    from flows.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
