"""A process that helps with an evaluation: ``python -m fssbench.evaluation.worker_process``.

`fssbench.evaluation.process_group.ProcessGroup.start` starts it and writes its arguments on its
standard input.
"""

from __future__ import annotations

import logging
import pickle
import sys


def main() -> int:
    """Measure chunks until there are none left; 0, or 2 after an error that a user can mend."""
    path, plugins, job, team = pickle.load(sys.stdin.buffer)  # of the process that started this one
    sys.path[:] = path
    logging.basicConfig(level=logging.WARNING, format="fssbench: %(levelname)s: %(message)s")
    from fssbench import registry
    from fssbench.errors import FssbenchError
    from fssbench.evaluation.evaluate import evaluate
    from fssbench.evaluation.process_group import ProcessGroup

    me = ProcessGroup(**team)
    registry.use_plugins(plugins)
    try:
        evaluate(job, team=me)
    except FssbenchError as error:
        logging.getLogger(__name__).warning(
            "process %d of %d: %s", me.rank + 1, me.count, " ".join(str(error).split())
        )
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
