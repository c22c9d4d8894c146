"""A face service's nose detector, copied through its answers (Dixon, Ott and Fagbemi).

A network learns where eyes, mouth and nose are and is served as AWS serves Rekognition; a thief
asks it about pictures through boto3 and trains clones on what it says, of rounded answers too.
"""

from denature.recipes.nose.findings import NoseResult
from denature.recipes.nose.reproduce import Faces, reproduce
from denature.recipes.nose.settings import SETTINGS, Setting, setting

__all__ = ["SETTINGS", "Faces", "NoseResult", "Setting", "reproduce", "setting"]
