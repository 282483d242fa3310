"""Pictures, drawn with matplotlib (the extra ``plots``)."""

from __future__ import annotations

import io
from collections.abc import Sequence

from lm_eval_steer.errors import MissingExtraError
from lm_eval_steer.names import printable
from lm_eval_steer.report.dose import DoseCurve


def dose_response_png(curves: Sequence[DoseCurve], title: str, ylabel: str) -> bytes:
    """Return a PNG of mean score against multiplier: one colour a layer, controls dashed and grey.

    Bars are the standard error of the paired change from λ = 0 over items.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plots") from None
    figure = Figure(figsize=(7.2, 4.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    layers = sorted({curve.layer for curve in curves})
    for curve in curves:
        shade = 0.15 + 0.7 * layers.index(curve.layer) / max(1, len(layers) - 1)
        means = [curve.mean(multiplier) for multiplier in curve.multipliers]
        axes.errorbar(
            curve.multipliers,
            means,
            yerr=[_change_error(curve, multiplier) for multiplier in curve.multipliers],
            label=f"{printable(curve.vector)}, layer {curve.layer}",
            color="0.6" if curve.control else _colour(shade),
            linestyle="--" if curve.control else "-",
            marker="" if curve.control else "o",
            capsize=2,
        )
    axes.axvline(0, color="0.85", zorder=0)
    axes.set(xlabel="multiplier λ", ylabel=ylabel, title=printable(title))
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _colour(shade: float) -> tuple[float, float, float, float]:
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["viridis"](shade)
    return red, green, blue, alpha


def _change_error(curve: DoseCurve, multiplier: float) -> float:
    base = curve.scores.get(0.0)
    scores = curve.scores[multiplier]
    if base is None or len(scores) < 2:
        return 0.0
    return DoseCurve(curve.vector, None, curve.layer, None, {0.0: base, 1.0: scores}).effect()[1]
