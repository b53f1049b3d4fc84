"""What files are the same, and which one a reference means."""

import json
from pathlib import Path

import pytest
import torch

from mmkd.chain.product import Product, digest, done_marker, fingerprint, read_json, write_json
from mmkd.chain.stage import Reference
from mmkd.checkpoint import CheckpointError, read_checkpoint


def save(path, meta=0, **state):
    torch.save(dict(state_dict=state, meta=dict(time=meta)), path)
    return str(path)


def test_only_weights_count_in_a_digest(tmp_path):
    one = save(tmp_path / 'a.pth', a=torch.ones(2), b=torch.tensor(3))
    assert digest(one) == digest(save(tmp_path / 'b.pth', 5, b=torch.tensor(3), a=torch.ones(2)))
    others = [
        dict(a=torch.ones(2), b=torch.tensor(4)),
        dict(a=torch.ones(2, dtype=torch.float64), b=torch.tensor(3)),
        dict(a=torch.ones(1, 2), b=torch.tensor(3)),
        dict(a=torch.ones(2), c=torch.tensor(3)),
    ]
    found = {digest(save(tmp_path / 'c.pth', **state)) for state in others}
    assert len(found | {digest(one)}) == 5
    (tmp_path / 'a.json').write_text('1')
    assert digest(str(tmp_path / 'a.json')).startswith('6b86b273ff34fce1'), 'sha256 of the bytes'


def test_tensors_in_lists_count_in_a_digest(tmp_path):
    """As in the file of a Standardiser: another one must let the next stage run again."""
    path = str(tmp_path / 'standardiser.pt')
    found = []
    for value in (1.0, 2.0):
        torch.save(dict(mean=[torch.full((2,), value)]), path)
        found.append(digest(path))
    assert found[0] != found[1]


def test_names_and_bytes_count_in_the_digest_of_a_folder(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / '1.png').write_bytes(b'1')
    found = [digest(str(tmp_path))]
    (tmp_path / 'a' / '1.png').write_bytes(b'2')
    found.append(digest(str(tmp_path)))
    (tmp_path / 'a' / '1.png').rename(tmp_path / '1.png')
    found.append(digest(str(tmp_path)))
    assert len(set(found)) == 3 and found[-1] == digest(str(tmp_path))


def test_a_fingerprint_changes_with_settings_and_inputs():
    found = {fingerprint(*pair) for pair in [({}, {}), ({'a': 1}, {}), ({}, {'a': '1'})]}
    assert len(found) == 3
    assert fingerprint({'a': 1, 'b': 2}, {}) == fingerprint({'b': 2, 'a': 1}, {})


def test_references_to_files(tmp_path):
    for name in ('epoch_1', 'epoch_2', 'best_top1_epoch_1'):
        save(tmp_path / f'{name}.pth', a=torch.ones(1))
    product = Product('', str(tmp_path / 'epoch_2.pth'), str(tmp_path))
    found = {
        take: Path(product.file(Reference('s', take))).name for take in ('last', 'best', 'epoch_1')
    }
    assert found == dict(last='epoch_2.pth', best='best_top1_epoch_1.pth', epoch_1='epoch_1.pth')
    with pytest.raises(
        FileNotFoundError, match="Stage 's' is done, but .*epoch_3.pth is not there"
    ):
        product.file(Reference('s', 'epoch_3'))
    (tmp_path / 'epoch_1.pth').write_bytes(b'PK half of it')
    with pytest.raises(CheckpointError):
        product.file(Reference('s', 'epoch_1'))


def test_a_peer_is_a_plain_network_in_a_file_of_its_own(tmp_path):
    state = {'fc.weight': torch.zeros(2), 'peers.other.fc.weight': torch.ones(2)}
    path = save(tmp_path / 'epoch_2.pth', **state)
    product, reference = Product('', path, str(tmp_path)), Reference('s', 'last', 'peers.other')
    for _ in range(2):
        own = product.file(reference)
        assert read_checkpoint(own)['state_dict'].keys() == {'fc.weight'}
        assert read_checkpoint(own)['state_dict']['fc.weight'].sum() == 2
    with pytest.raises(CheckpointError, match=r"no weights under 'peers.third.'"):
        product.file(Reference('s', 'last', 'peers.third'))


def test_markers(tmp_path):
    assert done_marker(str(tmp_path)) is None and read_json(str(tmp_path / 'done.json')) is None
    save(tmp_path / 'epoch_2.pth', a=torch.ones(1))
    product = dict(config='old/x.py', checkpoint='old/epoch_2.pth', folder='old', scores={'a': 1})
    write_json(str(tmp_path / 'done.json'), dict(product=product))
    found = done_marker(str(tmp_path))['product']
    assert found['checkpoint'] == str(tmp_path / 'epoch_2.pth'), 'the folder was moved'
    assert (found['config'], found['folder']) == (str(tmp_path / 'x.py'), str(tmp_path))
    (tmp_path / 'epoch_2.pth').unlink()
    assert done_marker(str(tmp_path)) is None
    (tmp_path / 'done.json').write_text(json.dumps(dict(product=dict(config=1))))
    with pytest.raises(ValueError, match='is no marker of a stage'):
        done_marker(str(tmp_path))
