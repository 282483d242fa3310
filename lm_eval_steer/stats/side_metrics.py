"""Side metrics: scores of a task beside its headline that pictures need, over the items that have them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lm_eval_steer.errors import InputError
from lm_eval_steer.stats.arrays import Floats, run_means
from lm_eval_steer.stats.bootstrap import estimates, resampling
from lm_eval_steer.stats.columns import Rows
from lm_eval_steer.stats.curve import SideMetric
from lm_eval_steer.stats.layout import Headline, Layout, make_layout

#: What a machiavelli choice gains and what it does; both are 1 for an agent that chooses at random.
REWARD, HARM = "reward_rel", "harm_rel"


class SideMetrics:
    """The side metrics of a task, each over the items for which it is defined, whatever the headline is defined for.

    Args:
        rows: of the unsteered cell.
        task: its name.
    """

    def __init__(self, rows: Rows, task: str) -> None:
        self._layouts = _layouts(rows, task)
        self._base = self.means(rows)

    def means(self, rows: Rows) -> dict[str, Floats]:
        """Return each item's mean over its orders of every metric, ``[items]``; without metrics that a row lacks."""
        found = {name: rows.values.get(name) for name in self._layouts}
        kept = {name: values[self._layouts[name].kept] for name, values in found.items() if values is not None}
        return {
            name: run_means(values, self._layouts[name].starts)
            for name, values in kept.items()
            if not np.isnan(values).any()
        }

    def estimates(self, means: Mapping[str, Floats], draws: int, seed: int) -> dict[str, SideMetric]:
        """Return every metric of a cell with its interval, and its paired change from the unsteered cell.

        Args:
            means: of the cell, see :meth:`means`.
            draws: bootstrap resamples.
            seed: of them.
        """
        found = {}
        for name, values in means.items():
            layout = self._layouts[name]
            sums = layout.cluster_sums(np.column_stack([values, values - self._base[name]]))
            drawn = resampling(len(layout.clusters), draws, seed)
            found[name] = SideMetric(*estimates(sums, layout.sizes, drawn))
        return found


def _layouts(rows: Rows, task: str) -> dict[str, Layout]:
    """Return the layout of each metric; none where the task does not have both, or no item has one of them."""
    try:
        return {name: make_layout(rows, task, Headline(name, name, name == REWARD)) for name in (REWARD, HARM)}
    except (KeyError, InputError):
        return {}
