"""`python -m kntrace` is `kntrace`."""

from kntrace.cli import main

main()
