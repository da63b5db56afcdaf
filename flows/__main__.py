"""`gptmill` and `python -m flows`: light to import, for each worker imports the module that was started once more."""

import os
import sys


def main() -> int:
    """Run the command that the arguments name and return its exit code."""
    from flows.cli import INTERRUPTED, main

    code = main()
    if code == INTERRUPTED:  # Python would wait for threads, whatever they are at
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
