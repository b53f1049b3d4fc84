"""The package of methods finds its files by itself."""

from pathlib import Path

import pytest

from mmkd import methods
from mmkd.registry import MODELS


def test_every_file_registers_a_method_that_can_be_imported_by_name():
    files = {path.stem for path in Path(methods.__file__).parent.glob('[!_]*.py')}
    found = {name: getattr(methods, name) for name in methods.names()}
    assert {cls.__module__ for cls in found.values()} == {f'mmkd.methods.{stem}' for stem in files}
    assert all(MODELS.get(f'mmkd.{name}') is cls for name, cls in found.items())
    assert set(found) < set(dir(methods))


def test_names_are_in_alphabetical_order():
    assert methods.names()[:4] == ['AB', 'AT', 'ATGradient', 'BYOT']


def test_no_other_name_is_there():
    with pytest.raises(AttributeError, match="'mmkd.methods' has no attribute 'Distiller'"):
        methods.Distiller  # noqa: B018
