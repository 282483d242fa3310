"""Glossary: what each number of a report means, in one sentence and one formula; shown at its end."""

from __future__ import annotations

# Term, its formula or form, what it says.
GLOSSARY = (
    ("λ", "multiplier", "The number that scales the vector. 0 is the unsteered model."),
    ("λ*", "argmax E", "The best multiplier, chosen on one half of the items; E is then reported on the other half."),
    (
        "score, p",
        "mean of sigmoid(ld)",
        "The headline of a task: the probability of the answer that shows the behaviour, averaged over option orders. "
        "For a task without a behaviour, its own first metric.",
    ),
    (
        "ld",
        "log p(matching) − log p(other)",
        "Logit difference in nats, averaged over option orders; nats a token for full-text tasks.",
    ),
    ("E(λ)", "mean of p(λ) − p(unsteered)", "Effect: the change of the score, item by item. In units of the score."),
    (
        "S",
        "mean of the slope of ld on λ",
        "Steerability: how far one unit of λ moves the logit difference, in nats. Needs three multipliers.",
    ),
    ("relative dose", "‖λ·v‖ / mean ‖h‖", "How large the edit is beside the residual stream that it is added to."),
    (
        "[low, high]",
        "bootstrap over items",
        "95 % interval. An item, with both orders and every λ, is drawn as one. From 30 items the percentile "
        "interval, from 10 a studentised one, under 10 none.",
    ),
    (
        "p null (K)",
        "(1 + #{|S random| ≥ |S|}) / (K + 1)",
        "Against K random directions of the same norm at the same place. A vector chosen as the best of several "
        "layers is held against the best of the same layers of each random direction.",
    ),
    ("null band", "2.5 % to 97.5 %", "Where E(λ) of the random directions lies. Inside it nothing was shown."),
    (
        "letter control",
        "mean of ± differences",
        "The direction that says “A” rather than “B”.",
    ),
    ("anti", "share of items with slope < 0", "Items that move against the vector."),
    ("ΔPB", "PB(λ*) − PB(0)", "Change of the preference for the option that is shown first."),
    ("mass", "p(A) + p(B)", "Probability that the answer is an option letter at all."),
    ("capability", "paired change", "Change of a task that measures ability, under the same plan."),
    ("Brier", "mean of Σ (p − y)²", "Squared error of the probabilities of the choices, where one of them is right."),
    (
        "ECE",
        "mean over bins of |confidence − accuracy|",
        "Expected calibration error over ten bins of equal mass. Chance alone makes it positive: read its change.",
    ),
    ("KL", "mean of Σ p log(p / q)", "Nats by which steering changes the next token's distribution on neutral text."),
    ("selectivity", "|S own| / mean |S other|", "How much more a vector does on its own task than on the others."),
    (
        "transfer",
        "S[v, t] / S[own vector of t, t]",
        "What a vector does on a task, as a share of the task's own.",
    ),
    ("collapse", "mass < 0.05 or halved", "Flag: the model no longer answers with a letter."),
    ("non_finite", "NaN or ±∞", "Flag: logits that are no numbers; such a cell has no score."),
    ("damage", "drop beyond the budget", "Flag: the capability task fell by more than 2 points, interval and all."),
    ("ceiling", "p(0) > 0.95 or < 0.05", "Flag: over half of the items have no room left to move."),
    ("letter", "control moves it", "Flag: the letter control moves the score as well."),
)
