"""The command that writes some weights of a file into one of their own."""

import pytest
import torch
from fitting_toys import fit, net, under

from mmkd.checkpoint import CheckpointError
from mmkd.checkpoint.extract import extract, main


def test_the_command_that_chooses(tmp_path, capsys):
    model = net()
    file, out = tmp_path / 'both.pth', tmp_path / 'chosen.pth'
    state = under('student.', model.state_dict()) | under('teacher.')
    torch.save(dict(state_dict=state, meta=dict(CLASSES=['a', 'b'])), file)
    main([str(file), str(out), '--prefix', 'student.'])
    assert capsys.readouterr().out == f'{len(model.state_dict())} weights written to {out}\n'
    chosen = torch.load(out)
    assert chosen['meta']['dataset_meta'] == dict(classes=['a', 'b'])
    assert not fit(chosen).lines()
    with pytest.raises(SystemExit, match='error: .*chosen.pth exists; choose another name'):
        main([str(file), str(out)])
    with pytest.raises(CheckpointError, match="under 'x.'; it has student., teacher."):
        extract(file, tmp_path / 'other.pth', 'x.')
