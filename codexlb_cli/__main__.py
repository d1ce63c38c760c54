"""The program: `codexlb`, and `python -m codexlb_cli`."""

import sys


def run() -> None:
    """Run the process's own command line and exit with its code."""
    try:
        # Loading takes a moment, and Ctrl-C during it is no different from Ctrl-C later.
        from codexlb_cli.main import main

        status = main()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    run()
