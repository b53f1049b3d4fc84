"""Changes of a built network, made before its weights are loaded.

An edit is called with a network and returns a network. It reads neither weights nor data, so that a
config is enough to build the edited network anywhere: ``mmkd.Edited`` is the function that does.
"""

from mmkd.edits.edited import edited
from mmkd.edits.exits import AnytimeClassifier, Exits
from mmkd.edits.quantise_map import QuantiseMap

__all__ = ['AnytimeClassifier', 'Exits', 'QuantiseMap', 'edited']
