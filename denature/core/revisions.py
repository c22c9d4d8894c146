"""Revisions of the parts of the code that decide a run's numbers.

The revisions are part of a run's identity: after a change that moves numbers, raise the revision of
the part, and earlier runs count as other runs. `tests/test_golden.py` fails where the numbers of a
part moved and its revision did not.
"""

REVISIONS = {
    "data": 1,
    "views": 1,
    "nets": 1,
    "answers": 1,
    "losses": 1,
    "loop": 1,
}
