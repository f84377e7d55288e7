"""Recipes: YAML text that describes a run, resolved with the origin of every value, checked without importing anything heavy, and built."""
from saccade.recipes.building import build, build_section
from saccade.recipes.checking import check
from saccade.recipes.comparison import compare
from saccade.recipes.recipe import Recipe, load_recipe, recipe_from_values, zoo_names

__all__ = ["Recipe", "build", "build_section", "check", "compare", "load_recipe", "recipe_from_values", "zoo_names"]
