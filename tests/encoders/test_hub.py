"""Folders of released models: where they are looked for, and what is said if they are nowhere."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from mmkd.encoders.hub import folder_of, weights_in


@pytest.fixture
def hub(monkeypatch):
    """A hub that knows nothing, and notes what it is asked."""
    asked = []
    module = ModuleType('huggingface_hub')
    module.constants = SimpleNamespace(HF_HUB_CACHE='the/cache')

    def snapshot_download(name, **options):
        asked.append((name, options['local_files_only']))
        if name == 'known/model':
            return f'the/cache/{name}'
        raise OSError('no route to host\nmore lines')

    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
    return asked


def test_a_folder_is_itself_and_asks_nobody(hub, tmp_path):
    assert folder_of(str(tmp_path), 'timm/') == str(tmp_path)
    assert not hub


def test_the_cache_is_read_and_the_network_only_if_asked(hub):
    assert folder_of('known/model', 'timm/') == 'the/cache/known/model'
    assert folder_of('known/model', 'timm/', download=True)
    assert hub == [('known/model', True), ('known/model', False)]


def test_a_name_without_a_network_says_where_to_put_the_files(hub):
    words = (
        r'x/y is neither a folder here \(.*x/y\) nor in the cache of the hub \(the/cache\)\. Where '
        r"there is a network, run hf download x/y .* and set model='transformers/FOLDER'"
    )
    with pytest.raises(FileNotFoundError, match=words):
        folder_of('x/y', 'transformers/')
    with pytest.raises(FileNotFoundError, match=r'could not be downloaded: no route to host Where'):
        folder_of('x/y', 'transformers/', download=True)


def test_what_can_only_be_a_folder(hub, tmp_path, monkeypatch):
    for name in ('./x', 'a/b/c', 'word'):
        with pytest.raises(FileNotFoundError, match='there is no folder .* must hold config.json'):
            folder_of(name, 'timm/')
    assert not hub
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(ImportError, match='pip install huggingface_hub'):
        folder_of('x/y', 'timm/')


def test_weights_of_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no model.safetensors, only nothing'):
        weights_in(str(tmp_path))
    (tmp_path / 'model.safetensors').touch()
    assert weights_in(str(tmp_path)) == str(tmp_path / 'model.safetensors')
