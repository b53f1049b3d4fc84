"""Tests mirror the source: ``mmkd/room/module.py`` has ``tests/room/test_module.py``."""

from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / 'mmkd'


def test_modules_have_a_test_of_their_name():
    modules = [p.relative_to(SOURCE) for p in SOURCE.rglob('*.py') if p.name != '__init__.py']
    without = [
        str(module)
        for module in modules
        if not (TESTS / module.parent / f'test_{module.stem.lstrip("_")}.py').exists()
    ]
    assert len(without) <= 0.1 * len(modules), sorted(without)
