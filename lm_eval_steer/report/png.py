"""PNG: a scene as a bitmap, drawn with matplotlib (the extra ``plots``)."""

from __future__ import annotations

import io
import warnings
from typing import Any

from lm_eval_steer.errors import MissingExtraError
from lm_eval_steer.names import printable
from lm_eval_steer.report.palette import light
from lm_eval_steer.report.scene import Area, Box, Dot, Line, Mark, Scene, Text, corners

_DOTS_PER_INCH = 192  # two dots a CSS pixel
_POINTS = 0.75  # a CSS pixel in points
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}


def to_png(scene: Scene) -> bytes:
    """Return a scene as PNG in light colours on white, two dots a pixel.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plots") from None
    settings = {"font.family": "DejaVu Sans", "text.parse_math": False}  # a name with dollar signs is no formula
    with style.context(settings, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(scene.width / 96, scene.height / 96), dpi=_DOTS_PER_INCH, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
        axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))
        for order, mark in enumerate(scene.marks):
            _draw(axes, mark, order)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _draw(axes: Any, mark: Mark, order: int) -> None:
    from matplotlib.patches import Circle, Polygon, Rectangle

    match mark:
        case Line():
            xs, ys = zip(*mark.points, strict=True)
            dash = "--" if mark.dashed else "-"
            width = mark.width * _POINTS
            axes.plot(xs, ys, dash, color=light(mark.role), linewidth=width, alpha=mark.alpha, zorder=order)
        case Area():
            patch = Polygon(mark.points, color=light(mark.role), alpha=mark.alpha, linewidth=0, zorder=order)
            axes.add_patch(patch)
        case Box():
            fill = light(mark.role) if mark.role else "none"
            frame = light(mark.frame) if mark.frame else "none"
            place = ((mark.x, mark.y), mark.width, mark.height)
            axes.add_patch(Rectangle(*place, facecolor=fill, edgecolor=frame, alpha=mark.alpha, zorder=order))
        case Dot():
            colour = light(mark.role)
            paint: dict[str, Any] = {"facecolor": colour, "edgecolor": "none", "alpha": mark.alpha, "zorder": order}
            if mark.hollow:
                paint |= {"facecolor": light("paper"), "edgecolor": colour}
            circle = mark.shape == "circle"
            axes.add_patch(Circle((mark.x, mark.y), mark.size, **paint) if circle else Polygon(corners(mark), **paint))
        case Text():
            axes.text(
                mark.x,
                mark.y,
                printable(mark.text),
                fontsize=mark.size * _POINTS * 0.92,  # DejaVu is wider than what pages are set in
                color=light(mark.role),
                ha=_ANCHORS[mark.anchor],
                va="baseline",
                rotation=90 if mark.upright else 0,
                rotation_mode="anchor",
                fontweight="bold" if mark.bold else "normal",
                zorder=order,
            )
