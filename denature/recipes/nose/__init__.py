"""A face service's nose detector, cloned from its answers (Dixon, Ott and Fagbemi).

A network learns to locate eyes, mouth and nose and is served by the protocol of AWS Rekognition. A
thief queries the service through boto3 and trains clones on the answers, also on rounded ones.
"""

from denature.recipes.nose.findings import NoseResult
from denature.recipes.nose.reproduce import Faces, reproduce
from denature.recipes.nose.settings import SETTINGS, Setting, setting

__all__ = ["SETTINGS", "Faces", "NoseResult", "Setting", "reproduce", "setting"]
