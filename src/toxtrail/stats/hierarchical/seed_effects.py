"""Variation among fine-tunes of one recipe: the seed-to-seed level of the hierarchical model.

Variants with the same recipe differ in their seeds only. In the hierarchical model (`model`) they
share an effect and deviate from it; g(v) is the recipe of v, or v itself if no other variant has
its recipe:

    variant[v] = sd_variant group[g(v)] + sd_recipe[r(v)] seed[v]

    group     ~ ZeroSumNormal(1)
    seed      ~ Normal(0, 1), 0 for a variant whose recipe no other has
    sd_recipe ~ HalfNormal(0.5): log-odds. Our choice: half the scale of sd_variant, because seeds
                are expected to have smaller effects than recipes. With as few as three seeds, this
                prior is influential.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from toxtrail.stats.bayes_libraries import load_pymc
from toxtrail.stats.rates import Floats, Ints

SCALE = 0.5
"""Scale of the half-normal prior of sd_recipe, log-odds."""


class RecipeGroups(NamedTuple):
    """Groups of variants that are fine-tunes of one recipe."""

    names: tuple[str, ...]
    """Recipes of at least two variants."""
    of: Ints
    """Index in `names` of each variant's recipe, (variant,); -1 for none of them."""

    @property
    def members(self) -> Ints:
        """Indices of the variants of these recipes, (member,)."""
        indices: Ints = np.flatnonzero(self.of >= 0)
        return indices

    @property
    def groups(self) -> Ints:
        """Number of each variant's group, (variant,): recipes first, then a separate group for each
        other variant."""
        numbers = self.of.copy()
        numbers[numbers < 0] = len(self.names) + np.arange(int((numbers < 0).sum()))
        return numbers

    @property
    def coords(self) -> dict[str, Any]:
        """Coordinates of the dimensions that recipes add to the model."""
        return {
            "group": np.arange(int(self.groups.max()) + 1),
            "recipe": list(self.names),
            "seed": self.members,
        }


def recipes_of(named: Sequence[str | None]) -> RecipeGroups | None:
    """Group variants by recipe; None if no recipe occurs twice.

    Args:
        named: recipe of each variant, in order; None for none.
    """
    counts = Counter(name for name in named if name is not None)
    names = tuple(name for name, count in counts.items() if count > 1)
    if not names:
        return None
    places = {name: index for index, name in enumerate(names)}
    return RecipeGroups(
        names, np.array([places.get(name or "", -1) for name in named], dtype=np.int64)
    )


def variant_effect(recipes: RecipeGroups, sd_variant: Any) -> Any:
    """Define `variant` of the module docstring, (variant,).

    It must be called within the context of a PyMC model with the dimensions of `recipes.coords`.
    """
    pm = load_pymc()

    sd_recipe = pm.HalfNormal("sd_recipe", SCALE, dims="recipe")
    seed = pm.Normal("raw_seed", 0.0, 1.0, dims="seed")
    places = np.eye(len(recipes.of))[:, recipes.members]  # (variant, seed)
    apart = places @ (sd_recipe[recipes.of[recipes.members]] * seed)
    if int(recipes.groups.max()) == 0:  # all variants have one recipe: mu is its level
        return apart
    group = pm.ZeroSumNormal("raw_variant", 1.0, dims="group")
    return sd_variant * group[recipes.groups] + apart


def prior_effect(
    recipes: RecipeGroups, sd_variant: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Sample the prior of `variant` in the module docstring.

    Args:
        recipes: groups of variants that are fine-tunes of one recipe.
        sd_variant: (draw,).
        rng: random generator.

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
    """Return, for each recipe, the log-odds of a fine-tune without deviation, (draw, subset).

    Args:
        recipes: groups of variants that are fine-tunes of one recipe.
        eta: (draw, variant, subset).
        sd_recipe: (draw, recipe).
        seed: (draw, member).
    """
    apart = sd_recipe[:, recipes.of[recipes.members]] * seed
    level = eta[:, recipes.members] - apart[:, :, None]
    member_recipes = recipes.of[recipes.members]
    return [level[:, member_recipes == recipe].mean(axis=1) for recipe in range(len(recipes.names))]
