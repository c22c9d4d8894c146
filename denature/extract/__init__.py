"""The thief's side of a wire: ask a victim, keep what it answered, train a clone on it.

Nothing here imports the victim's side, nor what trains a nasty teacher: a thief knows what it was
answered.
"""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.extract.config import ExtractionConfig, RequestConfig
    from denature.extract.ledger import Ledger
    from denature.extract.oracle import Oracle
    from denature.extract.stealing import steal
    from denature.extract.victims.base import AskFailed, Victim, VictimInfo
    from denature.extract.victims.called import FunctionVictim

__getattr__ = attach(
    __name__,
    {
        "steal": "stealing",
        "ExtractionConfig": "config",
        "RequestConfig": "config",
        "Oracle": "oracle",
        "Ledger": "ledger",
        "Victim": "victims.base",
        "VictimInfo": "victims.base",
        "AskFailed": "victims.base",
        "FunctionVictim": "victims.called",
    },
)

__all__ = [
    "steal",
    "ExtractionConfig",
    "RequestConfig",
    "Oracle",
    "Ledger",
    "Victim",
    "VictimInfo",
    "AskFailed",
    "FunctionVictim",
]
