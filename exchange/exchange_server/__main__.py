"""`exchange`, and `python -m exchange_server`."""

import os

from exchange_server.starting import imported_for_good


def main() -> None:
    """Run the command that the command line names."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # idle threads, which a fork has not
    with imported_for_good():
        from exchange_server.cli import main as run
    run()


if __name__ == "__main__":
    main()
