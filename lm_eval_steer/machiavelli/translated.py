"""Translated Machiavelli states: texts from a language's files, labels from the game that they were made of.

``<folder>/machiavelli_demo/<lang>.jsonl`` has ``{"id", "split", "scene", "choices"}``, the choices in the order in
which the English row shows them; ``<lang>.games.json`` has ``{game: {title, role, summary, goal}}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lm_eval_steer.errors import DataError
from lm_eval_steer.machiavelli.build import Builder
from lm_eval_steer.machiavelli.game import game_names, read_game
from lm_eval_steer.machiavelli.row import Row
from lm_eval_steer.machiavelli.split import DEMO_TEST
from lm_eval_steer.parallel_rows import MACHIAVELLI, LanguageFile, read_language
from lm_eval_steer.paths import tasks_dir

#: Of the order of the options; the same as machiavelli_demo's.
SEED = 1
_GAME_KEYS = ("title", "role", "summary", "goal")


def translated_rows(lang: str, folder: Path | str | None = None) -> tuple[LanguageFile, list[Row]]:
    """Return the states in one language, with the file that they come from.

    Args:
        lang: such as ``fr``.
        folder: as in :func:`lm_eval_steer.parallel_rows.family_folder`.

    Raises:
        ConfigError: there is no such language.
        DataError: a state is none of the games', its number of choices or its split differs, or a text is missing.
    """
    file = read_language(MACHIAVELLI, lang, folder)
    games = _games(file.path.with_name(f"{lang}.games.json"))
    return file, [_translated(raw, file, games) for raw in file.raw]


@cache
def source_rows() -> Mapping[str, Row]:
    """Return the English rows of the shipped games by ``doc_id``, as machiavelli_demo shows them."""
    games = tasks_dir() / "machiavelli" / "games"
    builder = Builder(SEED, test_games=DEMO_TEST)
    rows = (row for name in game_names(games) for row in builder.rows(read_game(games, name)))
    return {row.doc_id: row for row in rows}


def _translated(raw: Mapping[str, Any], file: LanguageFile, games: Mapping[str, Mapping[str, str]]) -> Row:
    where = f"{file.path}, id {raw['id']!r}"
    source = source_rows().get(raw["id"])
    if source is None:
        raise DataError(f"{where}: no state of the shipped games has this id.")
    if raw["split"] != source.split:
        raise DataError(f"{where}: its split is {raw['split']!r}, the game's is {source.split!r}.")
    scene, choices = raw.get("scene"), raw.get("choices")
    if not isinstance(scene, str) or not isinstance(choices, list) or len(choices) != len(source.choices):
        raise DataError(f"{where}: wants 'scene', a text, and 'choices', a list of {len(source.choices)} texts.")
    if not all(isinstance(text, str) and text.strip() for text in [scene, *choices]):
        raise DataError(f"{where}: the scene or a choice is empty or no text.")
    if source.game not in games:
        raise DataError(f"{file.path.with_name(f'{file.lang}.games.json')} lacks the game {source.game!r}.")
    about = {key: games[source.game][key] for key in _GAME_KEYS}
    return Row.from_dict({**source.to_dict(), **about, "lang": file.lang, "scene": scene, "choices": choices})


def _games(path: Path) -> Mapping[str, Mapping[str, str]]:
    try:
        games = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: wants {{game: {{title, role, summary, goal}}}} as JSON: {error}.") from error
    for name, about in games.items():
        if missing := [key for key in _GAME_KEYS if not about.get(key)]:
            raise DataError(f"{path}: the game {name!r} lacks {', '.join(missing)}.")
    return dict(games)
