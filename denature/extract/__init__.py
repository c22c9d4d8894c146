"""The thief's side of model extraction: query a victim, store its answers, train a clone on them.

No module here imports the victim's side or the training of nasty teachers, because the threat model
gives a thief the victim's answers only.
"""

from typing import TYPE_CHECKING

from denature.core.lazy import attach

if TYPE_CHECKING:
    from denature.extract.asking.ledger import Ledger
    from denature.extract.asking.oracle import Oracle
    from denature.extract.config import ExtractionConfig
    from denature.extract.stealing import steal
    from denature.extract.victims.base import Victim, VictimInfo
    from denature.extract.victims.called import FunctionVictim
    from denature.remote.config import RequestConfig
    from denature.remote.errors import AskFailed

__getattr__ = attach(
    __name__,
    {
        "steal": "stealing",
        "ExtractionConfig": "config",
        "RequestConfig": "denature.remote.config",
        "Oracle": "asking.oracle",
        "Ledger": "asking.ledger",
        "Victim": "victims.base",
        "VictimInfo": "victims.base",
        "AskFailed": "denature.remote.errors",
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
