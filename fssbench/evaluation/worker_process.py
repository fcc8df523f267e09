"""Worker process of an evaluation: ``python -m fssbench.evaluation.worker_process``.

`fssbench.evaluation.process_group.ProcessGroup.start` starts it and sends its arguments to its
standard input.
"""

from __future__ import annotations

import logging
import pickle
import sys


def main() -> int:
    """Measure chunks until none is left; return the exit status, 2 after a user error."""
    path, plugins, settings, arguments = pickle.load(sys.stdin.buffer)
    sys.path[:] = path
    logging.basicConfig(level=logging.WARNING, format="fssbench: %(levelname)s: %(message)s")
    from fssbench import registry
    from fssbench.errors import FssbenchError
    from fssbench.evaluation.evaluate import evaluate
    from fssbench.evaluation.process_group import ProcessGroup

    group = ProcessGroup(**arguments)
    registry.use_plugins(plugins)
    try:
        evaluate(settings, group=group)
    except FssbenchError as error:
        logging.getLogger(__name__).warning(
            "process %d of %d: %s", group.rank + 1, group.count, " ".join(str(error).split())
        )
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
