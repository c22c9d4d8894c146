"""denature: can this neural network be cloned through its answers, and what stops that?

from denature import train
teacher = train.normal("cnn", "digits")
nasty = train.nasty("cnn", "digits", adversary=teacher, temperature=20)
student = train.distilled("mlp", "digits", teacher=nasty, temperature=20)
print(student.accuracy)
"""

from denature.core import threads as _threads

__version__ = "0.1.0"

_threads.prepare()  # here, since OpenMP reads its variables when torch is imported
