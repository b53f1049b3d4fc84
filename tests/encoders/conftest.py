"""Small stand-ins of the libraries."""

import sys

import library_toys
import pytest


@pytest.fixture
def timm(monkeypatch):
    module = library_toys.timm()
    monkeypatch.setitem(sys.modules, 'timm', module)
    return module


@pytest.fixture
def transformers(monkeypatch):
    module = library_toys.transformers()
    monkeypatch.setitem(sys.modules, 'transformers', module)
    return module
