"""Which protocols only replay how a paper's authors drew their episodes."""

from __future__ import annotations

from fssbench.errors import FssbenchError

REASON = "replay of a published protocol"
"""Why a row under one has no rank: its lists are a person's own files, which nobody can check."""


def is_replay(protocol: str) -> bool:
    """Whether a registered protocol reads authors' list files; False for one that is unknown here.

    What a plugin registers is known where the plugin is loaded.
    """
    from fssbench import registry
    from fssbench.specs import ProtocolSpec

    try:
        return bool(registry.registry().get(ProtocolSpec, protocol).lists)
    except FssbenchError:
        return False
