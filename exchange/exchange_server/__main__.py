"""`python -m exchange_server` is `exchange`: so that a supervisor starts what it runs itself."""

from exchange_server.cli import main

main()
