"""Result: what is said of a family of tasks in several languages, in plain fields for tables, reports and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lm_eval_steer.stats.crosslingual.levels import Gap
from lm_eval_steer.stats.crosslingual.scaling import Scaling
from lm_eval_steer.stats.crosslingual.variance import Components
from lm_eval_steer.stats.curve import Estimate
from lm_eval_steer.sweep.records import Label


@dataclass(frozen=True)
class Language:
    """One language without steering.

    Attributes:
        name: its tag.
        task: in this language.
        left_out: items that not all languages have, and that are in no number.
        score: mean over the common items.
        gap: against the reference; None for the reference itself.
    """

    name: str
    task: str
    left_out: int
    score: Estimate
    gap: Gap | None


@dataclass(frozen=True)
class Pair:
    """A language against the reference, item by item.

    Attributes:
        rank: Spearman's correlation.
        same_sign: share of items whose sign agrees.
        kappa: Cohen's, of the signs.
    """

    rank: Estimate
    same_sign: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class Agreement:
    """How one number per item and language agrees between languages.

    Attributes:
        pairs: language → it against the reference.
        alpha_nominal: Krippendorff's alpha of the signs, all languages.
        alpha_interval: of the numbers.
        variance: crossed parts.
    """

    pairs: Mapping[str, Pair]
    alpha_nominal: Estimate
    alpha_interval: Estimate
    variance: Components


@dataclass(frozen=True)
class VectorEffect:
    """One vector at one layer on the task in every language.

    Attributes:
        vector: name.
        id: content id.
        sha256: of its file; None where the records do not know it.
        method: how it was made.
        concept: what it stands for, by the name of its data; "" where that does not say.
        extracted: languages of its data; () where that does not say.
        steerability: language → S over the common items.
        difference: language → S − S_ref, paired.
        p_null: language → against random directions, corrected for the choice of a layer; None without them.
        nulls: language → how many there are.
        agreement: of ``s_i``; None at layers that are not shown and where a language is missing.
    """

    vector: str
    id: str
    sha256: str | None
    method: str | None
    concept: str
    extracted: tuple[str, ...]
    steerability: Mapping[str, Estimate]
    difference: Mapping[str, Estimate]
    p_null: Mapping[str, float | None]
    nulls: Mapping[str, int]
    agreement: Agreement | None = None


@dataclass(frozen=True)
class TransferCell:
    """One place of the transfer matrix.

    Attributes:
        ratio: ``T[x,y] = S[x,y] / S[y,y]``; its ``why`` says what n/a means.
        at_equal_dose: the same per unit of relative dose; None where a dose is unknown.
        band: 2.5 % and 97.5 % of ``S_k / S[y,y]`` over random directions of x's norm; None of under 19.
        nulls: how many these are.
        beyond_null: whether the ratio lies outside the band; None without one.
        own: whether x is y.
        alignment: how well the model finds the same item in the other language, at its best layer; None where unknown.
        alignment_here: the same at the vector's layer.
        known: False where ``alignment`` is under the threshold: the model does not know the language.
    """

    ratio: Estimate
    at_equal_dose: float | None = None
    band: tuple[float, float] | None = None
    nulls: int = 0
    beyond_null: bool | None = None
    own: bool = False
    alignment: float | None = None
    alignment_here: float | None = None
    known: bool | None = None


@dataclass(frozen=True)
class Transfer:
    """The transfer matrix of one kind of vector at one layer.

    Attributes:
        concept: what the vectors stand for.
        sources: name of each row: a language, ``en+fr`` for a pooled vector, ``all but fr``.
        vectors: name of each row's vector.
        languages: of the columns.
        cells: (row, language) → cell.
        cosines: (row, row) → cosine of the two vectors at this layer, as far as the alignment file knows it.
    """

    concept: str
    sources: tuple[str, ...]
    vectors: tuple[str, ...]
    languages: tuple[str, ...]
    cells: Mapping[tuple[int, str], TransferCell]
    cosines: Mapping[tuple[int, int], float] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerResult:
    """One layer (or none, for a plan of several).

    Attributes:
        layer: its label.
        vectors: what each does.
        transfers: a matrix for each kind of vector that there is in two languages.
    """

    layer: Label
    vectors: tuple[VectorEffect, ...]
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True)
class Place:
    """One place: scope, operation and whatever else, over its layers.

    Attributes:
        labels: all but the vector's and the layer.
        layers: ascending.
        shown: place in ``layers`` of the one that tables show: where the mean |S| is largest, of the vectors on the
            tasks of their own language where there are such.
    """

    labels: Mapping[str, Label]
    layers: tuple[LayerResult, ...]
    shown: int


@dataclass(frozen=True)
class Family:
    """A family of tasks on one model.

    Attributes:
        family: its name.
        scaffold: ``english`` or ``native``.
        model: as the records have it.
        metric: what the score is.
        languages: the reference first.
        items: how many all languages have.
        clusters: that these fall into.
        unsteered: agreement of what slopes are of, without steering.
        places: where vectors were added.
        note: why there is nothing more; "" otherwise.
        set_apart: tasks of which there are runs of another setting (items, examples, prompts) that are in no number.
    """

    family: str
    scaffold: str
    model: Mapping[str, Any]
    metric: str
    languages: tuple[Language, ...]
    items: int
    clusters: int
    unsteered: Agreement | None
    places: tuple[Place, ...]
    note: str = ""
    set_apart: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """The language that others are held against."""
        return self.languages[0].name


@dataclass(frozen=True)
class ScalingRow:
    """S of a language's own vector against model size.

    Attributes:
        family: its name.
        scaffold: of the tasks.
        concept: what the vectors stand for.
        language: of vector and task.
        unit: what S is per: ``λ`` or ``relative dose``.
        scaling: sizes, S and slope.
    """

    family: str
    scaffold: str
    concept: str
    language: str
    unit: str
    scaling: Scaling


@dataclass(frozen=True)
class CrossLingual:
    """All families, and what goes with the size of the model.

    Attributes:
        families: by name, scaffold and model.
        scaling: by family and language.
    """

    families: tuple[Family, ...] = ()
    scaling: tuple[ScalingRow, ...] = ()
