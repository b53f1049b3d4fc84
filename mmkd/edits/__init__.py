"""Changes of a built network, made before its weights are loaded.

An edit is called with a network and returns a network. It reads neither weights nor data, so that a
config is enough to build the edited network anywhere: ``edits=`` of the Distiller calls edits on
the student, and ``mmkd.Edited`` is the function that does so in any other place.

It may have three more names:

``claims``
    What it promises of the outputs, checked when it is made: ``'same'``, ``'shapes'`` or
    ``'none'``, which is the default.
``in_weights``
    True if the saved weights carry all that it does, so that the plain model is enough to use them;
    names of parameters must then stay. Otherwise the config of the student has the edit.
``describe()``
    A line for the plan, after the call.
"""

from mmkd.edits.apply import apply_edits, made_in
from mmkd.edits.cheap_convs import CheapConvs
from mmkd.edits.checking import same_outputs
from mmkd.edits.deepen import Deepen
from mmkd.edits.dirac import Dirac
from mmkd.edits.dominant_kernels import DominantKernels
from mmkd.edits.edited import edited
from mmkd.edits.exits import AnytimeClassifier, Exits
from mmkd.edits.fake_quant import FakeQuant
from mmkd.edits.no_shortcuts import NoShortcuts
from mmkd.edits.quantise_map import QuantiseMap
from mmkd.edits.widths import Widths

__all__ = [
    'AnytimeClassifier',
    'CheapConvs',
    'Deepen',
    'Dirac',
    'DominantKernels',
    'Exits',
    'FakeQuant',
    'NoShortcuts',
    'QuantiseMap',
    'Widths',
    'apply_edits',
    'edited',
    'made_in',
    'same_outputs',
]
