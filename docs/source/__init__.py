"""What the source says about methods and configs, parsed: nothing is imported.

A method is described in one place, its file: the module's first line says what it compares, the
class docstring names the paper and the options, class attributes say what it needs, the signature
holds the defaults. A config is described by its own syntax tree.
"""

from .classes import detectors, families
from .methods import read_methods
from .recipes import read_first_lines, read_recipes
from .records import ROOT, Method, Option, Recipe, UndocumentedError

__all__ = [
    'ROOT',
    'Method',
    'Option',
    'Recipe',
    'UndocumentedError',
    'detectors',
    'families',
    'read_first_lines',
    'read_methods',
    'read_recipes',
]
