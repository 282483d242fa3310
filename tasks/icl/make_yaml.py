"""Write the YAML of every icl task and of their group: python tasks/icl/make_yaml.py"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
WORDS = ("antonym", "capital_country", "country_capital", "present_past", "singular_plural")
VARIANTS = {"": (0, "false"), "_10shot": (10, "false"), "_10shot_shuffled": (10, "true")}
HEAD = "# Written by make_yaml.py; change that file or the template.\n"


def task_yaml(words: str, variant: str) -> str:
    """Return the YAML of one task."""
    shots, shuffled = VARIANTS[variant]
    return (
        f"{HEAD}include: _words_yaml\ntask: icl_{words}{variant}\ndataset_kwargs:\n"
        f"  words: {words}\n  shots: {shots}\n  shuffled: {shuffled}\nmetadata:\n  version: 1.0\n"
    )


def group_yaml() -> str:
    """Return the YAML of the group; a mean over tasks with and without demonstrations would say nothing."""
    tasks = "".join(f"  - icl_{words}{variant}\n" for words in WORDS for variant in VARIANTS)
    return f"{HEAD}group: icl\ntask:\n{tasks}metadata:\n  version: 1.0\n"


def main() -> None:
    """Write all files."""
    for words in WORDS:
        for variant in VARIANTS:
            (HERE / f"icl_{words}{variant}.yaml").write_text(task_yaml(words, variant), encoding="utf-8")
    (HERE / "icl.yaml").write_text(group_yaml(), encoding="utf-8")


if __name__ == "__main__":
    main()
