"""Defensive distillation at many temperatures, attacked with plain and with rescaled logits.

Papernot et al. 2016, arXiv:1511.04508, and the evaluation by Carlini and Wagner (2017).
"""

from denature.recipes.defensive.reproduce import DefensiveDistillationResult, reproduce, wanted
from denature.recipes.defensive.settings import SETTINGS, Setting, setting

__all__ = ["SETTINGS", "DefensiveDistillationResult", "Setting", "reproduce", "setting", "wanted"]
