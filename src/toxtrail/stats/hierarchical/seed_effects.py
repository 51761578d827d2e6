"""Fine-tunes of one recipe: how far do they lie apart?

Variants that name one recipe were made alike but for the seed. In the model of `pooled` they share
an effect and deviate from it; g(v) is the recipe of v, or v itself if it names none that another
one names too:

    variant[v] = sd_variant group[g(v)] + sd_recipe[r(v)] seed[v]

    group     ~ ZeroSumNormal(1)
    seed      ~ Normal(0, 1), 0 for a variant of no recipe
    sd_recipe ~ HalfNormal(0.5): log-odds. Our choice: half the scale of sd_variant, as seeds are
                expected to matter less than recipes; three seeds say little, so it matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from toxtrail.stats.rates import Floats, Ints

SCALE = 0.5
"""Of the prior of sd_recipe, log-odds."""


class RecipeGroups(NamedTuple):
    """Which variants are of one recipe."""

    names: tuple[str, ...]
    """Recipes that two variants or more are of."""
    of: Ints
    """(variant,): place in `names`, -1 without one."""

    @property
    def members(self) -> Ints:
        """Places of the variants that are of a recipe."""
        indices: Ints = np.flatnonzero(self.of >= 0)
        return indices

    @property
    def groups(self) -> Ints:
        """(variant,): recipes first, then each variant of none by itself."""
        numbers = self.of.copy()
        numbers[numbers < 0] = len(self.names) + np.arange(int((numbers < 0).sum()))
        return numbers

    @property
    def coords(self) -> dict[str, Any]:
        """Of the model's dimensions."""
        return {
            "group": np.arange(int(self.groups.max()) + 1),
            "recipe": list(self.names),
            "seed": self.members,
        }


def recipes_of(named: Sequence[str | None]) -> RecipeGroups | None:
    """What variants say, in their order; None if no recipe is named twice."""
    counts = Counter(name for name in named if name is not None)
    names = tuple(name for name, count in counts.items() if count > 1)
    if not names:
        return None
    places = {name: index for index, name in enumerate(names)}
    return RecipeGroups(
        names, np.array([places.get(name or "", -1) for name in named], dtype=np.int64)
    )


def variant_effect(recipes: RecipeGroups, sd_variant: Any) -> Any:
    """`variant` of this module's head, (variant,); inside a model with `recipes.coords`."""
    import pymc as pm

    sd_recipe = pm.HalfNormal("sd_recipe", SCALE, dims="recipe")
    seed = pm.Normal("raw_seed", 0.0, 1.0, dims="seed")
    places = np.eye(len(recipes.of))[:, recipes.members]  # (variant, seed)
    apart = places @ (sd_recipe[recipes.of[recipes.members]] * seed)
    if int(recipes.groups.max()) == 0:  # one recipe is the whole family: mu is its level
        return apart
    group = pm.ZeroSumNormal("raw_variant", 1.0, dims="group")
    return sd_variant * group[recipes.groups] + apart


def prior_effect(
    recipes: RecipeGroups, sd_variant: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """The same as the model believes it before any data.

    Args:
        sd_variant: (draw,).

    Returns:
        variant, (draw, variant), and sd_recipe, (draw, recipe).
    """
    draws, groups = len(sd_variant), int(recipes.groups.max()) + 1
    group = rng.standard_normal((draws, groups))
    group -= group.mean(axis=1, keepdims=True)
    sd_recipe = np.abs(rng.normal(0, SCALE, (draws, len(recipes.names))))
    variant = sd_variant[:, None] * group[:, recipes.groups]
    seed = rng.standard_normal((draws, len(recipes.members)))
    variant[:, recipes.members] += sd_recipe[:, recipes.of[recipes.members]] * seed
    return variant, sd_recipe


def recipe_means(
    recipes: RecipeGroups, eta: Floats, sd_recipe: Floats, seed: Floats
) -> list[Floats]:
    """Of each recipe (draw, subset): the log-odds of a fine-tune that deviates by nothing.

    Args:
        eta: (draw, variant, subset).
        sd_recipe: (draw, recipe).
        seed: (draw, member).
    """
    apart = sd_recipe[:, recipes.of[recipes.members]] * seed
    level = eta[:, recipes.members] - apart[:, :, None]
    member_recipes = recipes.of[recipes.members]
    return [level[:, member_recipes == recipe].mean(axis=1) for recipe in range(len(recipes.names))]
