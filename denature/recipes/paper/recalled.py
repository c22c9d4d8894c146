"""Values of the paper's tables as recalled, in percent: no readable source was found for them.

Tables show them beside measured values, marked as recalled; no verdict depends on them.
"""

from collections.abc import Mapping

ALONE, NORMAL, NASTY = "alone", "normal", "nasty"

RecalledKey = tuple[str, str, str, str]
"""Data, alone | normal | nasty, the teacher's network (empty for alone), the column's network."""


def _rows(data: str, columns: str, rows: Mapping[tuple[str, str], str]) -> dict[RecalledKey, float]:
    names = columns.split()
    return {
        (data, kind, teacher, name): float(value)
        for (kind, teacher), values in rows.items()
        for name, value in zip(names, values.split(), strict=True)
        if value != "-"
    }


RECALLED: Mapping[RecalledKey, float] = {
    **_rows(
        "cifar10",
        "teacher cnn resnetc20 resnetc32 resnet18 resnet50 resnext29",
        {
            (ALONE, ""): "- 86.64 92.28 93.04 95.13 94.98 95.60",
            (NORMAL, "resnet18"): "95.13 87.75 92.49 93.31 95.39 94.45 95.92",
            (NASTY, "resnet18"): "94.56 82.46 88.01 89.69 93.41 93.13 92.20",
            # With another network than its own kind as adversary:
            (NASTY, "resnet18 from cnn"): "93.82 77.12 88.32 90.40 94.05 - -",
            (NASTY, "resnet18 from resnext29"): "94.55 82.75 88.17 89.48 93.75 - -",
            # Students trained by DAFL, without data:
            (NORMAL, "resnet34 by dafl"): "95.42 - - - 92.49 - -",
            (NASTY, "resnet34 by dafl"): "94.54 - - - 86.15 - -",
        },
    ),
    **_rows(
        "cifar100",
        "teacher shufflenetv2 mobilenetv2 resnet18 resnet50 resnext29",
        {
            (ALONE, ""): "- 71.17 69.12 77.44 78.12 81.85",
            (NORMAL, "resnet18"): "77.44 74.24 73.11 79.03 79.94 82.14",
            (NASTY, "resnet18"): "77.42 64.49 3.45 74.81 74.28 78.88",
            (NORMAL, "resnet50"): "78.12 74.00 72.81 79.65 80.02 -",
            (NASTY, "resnet50"): "77.14 63.16 3.36 71.94 75.03 -",
            (NORMAL, "resnext29"): "81.85 74.50 72.43 80.84 - 83.53",
            (NASTY, "resnext29"): "80.26 58.99 1.55 68.52 - 75.08",
            # By DAFL; beside the nasty teacher the paper prints 0.79, these values differ by 0.85.
            (NORMAL, "resnet34 by dafl"): "76.97 - - 71.06 - -",
            (NASTY, "resnet34 by dafl"): "76.12 - - 65.67 - -",
        },
    ),
    **_rows(
        "tiny-imagenet",
        "teacher shufflenetv2 mobilenetv2 resnet18 resnet50 resnext29",
        {
            (ALONE, ""): "- 55.74 51.72 58.73 62.01 62.81",
            (NORMAL, "resnet18"): "58.73 58.09 55.99 61.45 - -",
            (NASTY, "resnet18"): "57.77 23.16 1.82 44.73 - -",
            (NORMAL, "resnet50"): "62.01 58.01 54.18 62.01 63.91 -",
            (NASTY, "resnet50"): "60.06 41.84 1.41 48.24 51.27 -",
            (NORMAL, "resnext29"): "62.81 57.87 54.34 62.38 - 64.22",
            (NASTY, "resnext29"): "60.21 42.73 1.09 54.53 - 59.54",
        },
    ),
}
