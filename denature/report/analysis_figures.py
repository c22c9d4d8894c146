"""Figures of the features and images of two teachers, to be written by `figures.write_figure`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from denature.data.png import from_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

# Okabe and Ito's eight; with the shapes twice as many classes can be told apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442", "#000000")
SHAPES = ("o", "^", "s", "D", "v", "P", "X", "*")


def scatter(
    panels: Mapping[str, "ArrayLike"], labels: Sequence[int], classes: Sequence[str]
) -> "Figure":
    """Two-dimensional maps side by side; a class has a colour and a shape.

    Args:
        panels: title to places, n x 2.
        labels: class of each place.
        classes: names of the classes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 3.5 * ((len(panels) + 1) // 2)))
    grid = figure.subplots((len(panels) + 1) // 2, 2, squeeze=False).ravel()
    of_class = np.asarray(labels)
    present = [int(k) for k in np.unique(of_class)]
    for axes, (title, places) in zip(grid, panels.items(), strict=False):
        for k in present:
            own = np.asarray(places)[of_class == k]
            axes.scatter(own[:, 0], own[:, 1], s=7, color=COLOURS[k % 8],
                         marker=SHAPES[(k + k // 8) % 8], linewidths=0,
                         label=classes[k])  # fmt: skip
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("t-SNE dimension 1 (no unit)", fontsize=7)
        axes.set_ylabel("t-SNE dimension 2 (no unit)", fontsize=7)
    if len(present) <= 20:
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=min(10, len(names)), fontsize=7,
                      bbox_to_anchor=(0.5, -0.03), markerscale=2)  # fmt: skip
    figure.tight_layout()
    return figure


def images(pngs: Sequence[str], classes: Sequence[str], *, title: str = "") -> "Figure":
    """A grid of images, a column for each of up to ten classes, in the order of their classes.

    Args:
        pngs: PNG files in base64.
        classes: names of the classes; image i is of class i modulo their number.
        title: of a figure that stands alone, without a caption.
    """
    from matplotlib.figure import Figure

    columns = min(10, len(classes))
    rows = (len(pngs) + columns - 1) // columns
    height = 0.75 * rows + 0.4 * bool(title)
    figure = Figure(figsize=(7.4, height))
    spacing = {"hspace": 0.05, "wspace": 0.08, "top": 1 - (0.5 if title else 0.1) / height}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=spacing)
    for number, axes in enumerate(grid.ravel()):
        axes.set_axis_off()
        if number < len(pngs):
            image = from_png(pngs[number])
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if number < columns:
                axes.set_title(str(classes[number % len(classes)])[:12], fontsize=7, pad=2)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure
