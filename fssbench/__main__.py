"""``python -m fssbench`` is ``fssbench``."""

from fssbench.cli import main

if __name__ == "__main__":
    main()
