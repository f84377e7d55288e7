"""Recipes: YAML text that describes a run, resolved with the origin of every value, checked without importing anything heavy, and built."""
from saccade.recipes.building import build, build_section
from saccade.recipes.checking import check
from saccade.recipes.comparison import compare
from saccade.recipes.inheritance import zoo_names
from saccade.recipes.recipe import Recipe, load_recipe, recipe_from_values
from saccade.recipes.stages import is_staged, stage_recipes

__all__ = ["Recipe", "build", "build_section", "check", "compare", "is_staged", "load_recipe", "recipe_from_values", "stage_recipes", "zoo_names"]
