"""`python -m codexlb_cli` is the same program as `codexlb`."""

from codexlb_cli.main import run

if __name__ == "__main__":
    run()
