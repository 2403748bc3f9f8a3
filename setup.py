"""What `pyproject.toml` cannot say: the recipe folders stand at the top of the checkout, and lie inside of the wheel.

An installed top-level `datasets` would take the place of Hugging Face's.
"""

from setuptools import find_packages, setup

RECIPES = {f"ovos_ray.recipes.{name}": name for name in ("trainables", "search_spaces", "datasets")}

setup(packages=[*find_packages(include=["ovos_ray*"]), *RECIPES], package_dir=RECIPES)
