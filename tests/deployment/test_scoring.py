"""mmkd export --score: the student and each of its files are tested as the student is."""

import pytest
import torch
from chain_toys import CLASSES, recipe

from mmkd.commands import main
from mmkd.deployment.exporting import export
from mmkd.deployment.networks import deployed
from mmkd.deployment.scoring import Scorer
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier


@pytest.fixture
def source(images, tmp_path, monkeypatch):
    """Paths of a config and of a checkpoint of random weights."""
    monkeypatch.setattr('mmkd.analysis.complexity.SECONDS', 0)
    config = recipe(images)
    for part in ('cfg', 'dataloader', 'evaluator'):
        config[f'test_{part}'] = config[f'val_{part}']
    config.dump(tmp_path / 'x.py')
    torch.manual_seed(0)
    state = build_model(tiny_classifier(4, num_classes=len(CLASSES))).state_dict()
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'x.pth')
    return config, str(tmp_path / 'x.pth')


def test_one_command_measures_everything(source, tmp_path, capsys):
    """Files of float32, int8 and int4: sizes, latencies and scores beside PyTorch's."""
    out = str(tmp_path / 'student.onnx')
    main(['export', str(tmp_path / 'x.py'), source[1], '--out', out, '--bits', '8', '4', '--score'])
    text = capsys.readouterr().out
    rows = {line[:10].strip(): line for line in text.splitlines() if ' KiB ' in line}
    assert list(rows) == ['PyTorch', 'float32', '8 bits', '4 bits']
    assert all(' ms ' in row and 'top1 ' in row for row in rows.values())
    assert '8 bits: 10 weights of 8 bits as int8' in text
    assert '4 bits: 8 weights of 4 bits as int4, 2 weights of 8 bits as int8' in text
    sizes = [(tmp_path / f'student{x}.onnx').stat().st_size for x in ('', '_8bit', '_4bit')]
    assert sizes == sorted(sizes, reverse=True) and sizes[2] < sizes[0]
    shown = [row.partition('top1 ')[2].split()[0] for row in rows.values()]
    assert shown[0] == shown[1]  # of float32, that of the student itself


def test_a_score_is_that_of_the_file(source, tmp_path):
    config, checkpoint = source
    scorer = Scorer(config, checkpoint, str(tmp_path / 'logs'))
    assert scorer.size() == (8, 8)
    network = deployed(scorer.model)
    own = scorer.own()

    def always(label):
        row = torch.eye(len(CLASSES))[[label]]
        return scorer.of(network, lambda pixels: [row], (8, 8))

    shares = [float(always(label).split()[1]) for label in range(len(CLASSES))]
    assert sum(shares) == pytest.approx(100, abs=0.1) and own == scorer.own()


def test_bad_input(source, tmp_path):
    config, checkpoint = source
    out = str(tmp_path / 'x.onnx')
    with pytest.raises(ValueError, match='--bits must be a whole number'):
        export(config, checkpoint, out, bits=[1])
    config.pop('test_dataloader')
    with pytest.raises(ValueError, match='--score tests the files, but .* has no test_dataloader'):
        export(config, checkpoint, out, score=True)
