"""Defensive distillation at many temperatures, before and after the temperature is put back.

Papernot et al. 2016, arXiv:1511.04508, and what Carlini and Wagner (2017) found of it.
"""

from denature.recipes.defensive.reproduce import DefensiveDistillationResult, reproduce, wanted
from denature.recipes.defensive.settings import SETTINGS, Setting, setting

__all__ = ["SETTINGS", "DefensiveDistillationResult", "Setting", "reproduce", "setting", "wanted"]
