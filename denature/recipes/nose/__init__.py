"""A face service's nose detector, cloned from its answers (Dixon, Ott and Fagbemi).

A network learns to locate eyes, mouth and nose and is served by the protocol of AWS Rekognition. A
thief queries the service through boto3 and trains clones on the answers, also on rounded ones.
"""
