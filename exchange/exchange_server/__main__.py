"""`exchange`, and `python -m exchange_server`: a supervisor starts so what it runs itself."""

from exchange_server.starting import imported_for_good


def main() -> None:
    """Run the command that the command line names."""
    with imported_for_good():
        from exchange_server.cli import main as run
    run()


if __name__ == "__main__":
    main()
