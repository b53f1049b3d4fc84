"""Operators that cannot run here."""

import pytest

from mmkd.operators import missing
from mmkd.operators.missing import OperatorMissing, absent


def test_the_name_and_what_to_install():
    refuse = absent('border_align_forward')
    with pytest.raises(OperatorMissing, match="mmcv's operator border_align_forward is not among"):
        refuse(1, 2, three=3)
    with pytest.raises(RuntimeError, match='compile mmcv: CFLAGS=-g0 pip install'):
        refuse()


@pytest.mark.parametrize(
    ('installed', 'pin'),
    [
        ({'mmcv': ['onedl-mmcv']}, 'onedl-mmcv==2.2.9'),
        ({'mmcv': ['mmcv-lite']}, 'mmcv==2.2.9'),
        ({}, 'onedl-mmcv'),
    ],
)
def test_the_installed_version_is_compiled(installed, pin, monkeypatch):
    monkeypatch.setattr(missing, 'packages_distributions', lambda: installed)
    monkeypatch.setattr(missing, 'version', lambda name: '2.2.9')
    assert missing.compile_command().endswith(f'--no-build-isolation {pin}')
