"""Writes the task and group files of this folder: ``python tasks/caa/make_yaml.py``. Running it again changes nothing.

One small file a task, which includes the template of its kind (``_letters_yaml``, ``_text_yaml``), and one a group.
"""

from __future__ import annotations

from pathlib import Path

from lm_eval_steer.caa import BEHAVIOURS, task_name
from lm_eval_steer.files import write_text
from lm_eval_steer.scoring import LETTER_METRICS, TEXT_METRICS

HERE = Path(__file__).resolve().parent
HEADER = "# Written by make_yaml.py; change that file or the template.\n"
KINDS = {"caa": ("_letters_yaml", "", LETTER_METRICS), "caa_text": ("_text_yaml", "_text", TEXT_METRICS)}


def task_file(template: str, name: str, behaviour: str) -> str:
    """Return the YAML of one task."""
    return f"{HEADER}include: {template}\ntask: {name}\ndataset_kwargs:\n  behaviour: {behaviour}\n"


def group_file(group: str, names: list[str], metrics: list[str]) -> str:
    """Return the YAML of a group, whose aggregate gives every behaviour the same weight."""
    tasks = "".join(f"  - {name}\n" for name in names)
    entries = "".join(f"  - metric: {metric}\n    aggregation: mean\n    weight_by_size: false\n" for metric in metrics)
    return f"{HEADER}group: {group}\ntask:\n{tasks}aggregate_metric_list:\n{entries}metadata:\n  version: 1.0\n"


def files() -> dict[str, str]:
    """Return every generated file's name and text."""
    made: dict[str, str] = {}
    for group, (template, suffix, metrics) in KINDS.items():
        names = {behaviour: task_name(behaviour) + suffix for behaviour in BEHAVIOURS}
        for behaviour, name in names.items():
            made[f"{name}.yaml"] = task_file(template, name, behaviour)
        made[f"{group}.yaml"] = group_file(group, list(names.values()), list(metrics))
    return made


def main() -> None:
    """Write the files beside this script."""
    for name, text in files().items():
        write_text(HERE / name, text)


if __name__ == "__main__":
    main()
