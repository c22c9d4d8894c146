"""Other names of the field, for errors: what papers and other libraries call what is named here."""

import re
from collections.abc import Collection, Mapping

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    # Attacks, as foolbox, ART and their papers name them.
    "bim": ("pgd",),
    "boundary": ("decision",),
    "cw": ("carlini-wagner",),
    "c&w": ("carlini-wagner",),
    "hopskipjump": ("decision",),
    "i-fgsm": ("pgd",),
    "jsma": ("few-pixels",),
    # Thieves.
    "activethief": ("active-both", "active-uncertainty", "active-k-center"),
    "copycat": ("labels",),
    "copycatcnn": ("labels",),
    "fix-match": ("semi-supervised",),
    "knockoff": ("naive", "other-domain"),
    "knockoffnets": ("naive", "other-domain"),
    "mixmatch": ("semi-supervised",),
    # Defenses.
    "argmax": ("label-only",),
    "deceptive-perturbation": ("reverse-sigmoid",),
    "grad-redirection": ("gradient-redirection",),
    "hard-label": ("label-only",),
    "mad-argmax": ("mad",),
    "modelguard": ("modelguard-w", "modelguard-s"),
    "stingy-teacher": ("sparse-logits",),
    # Options.
    "batch": ("batch-size",),
    "data": ("pool", "test"),
    "dataset": ("data", "pool"),
    "cuda": ("device",),
    "eps": ("linf", "l2", "l0"),
    "epsilon": ("linf", "l2", "l0"),
    "gpu": ("device",),
    "learning-rate": ("lr",),
    "model": ("student", "net"),
    "num-epochs": ("epochs",),
    "out-dir": ("out",),
    "output": ("out",),
    "output-dir": ("out",),
    "queries": ("budget",),
    "t": ("temperature",),
    "tau": ("temperature",),
}


def _joined(name: str) -> str:
    return re.sub("[-_]", "", name.casefold())


BY_LETTERS = {_joined(name): found for name, found in SYNONYMS.items()}


def synonyms(name: str, known: Collection[str]) -> list[str]:
    """The known names that another name of the field stands for; options keep their dashes."""
    bare = name.removeprefix("--")
    dashes = name[: len(name) - len(bare)]
    found = BY_LETTERS.get(_joined(bare), ())
    return [f"{dashes}{other}" for other in found if f"{dashes}{other}" in known]
