"""What checkpoints say of edits: written and read in one form, and told in one sentence."""

import torch

from mmkd.checkpoint.edit_record import EditRecord

FOUR = dict(type='mmkd.FakeQuant', bits=4)


def test_what_is_written_is_read():
    saved = dict(state_dict={})
    EditRecord([['student', FOUR], ['other', dict(FOUR, bits=2)]], {'w': torch.ones(2)}).write(
        saved
    )
    assert saved['edits']['edits'][0] == ['student', FOUR] and set(saved) == {'state_dict', 'edits'}
    found = EditRecord.read(saved)
    assert found.of() == [FOUR] and found.of('other') == [dict(FOUR, bits=2)]
    assert torch.equal(found.latent['w'], torch.ones(2))
    assert found.told() == f'{FOUR}; other: {dict(FOUR, bits=2)}'


def test_a_checkpoint_without_edits():
    for saved in ({}, dict(edits=None), dict(edits=5), dict(edits={})):
        found = EditRecord.read(saved)
        assert (found.entries, dict(found.latent), found.told()) == ([], {}, 'none')
    assert EditRecord(5).told() == '5'
