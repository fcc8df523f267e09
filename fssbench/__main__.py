"""The command line as ``python -m fssbench``."""

from fssbench.cli import main

if __name__ == "__main__":
    main()
