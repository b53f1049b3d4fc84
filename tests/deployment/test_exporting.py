"""mmkd export: the file computes what the student computes, and the command says what it costs."""

import pytest
import torch
from deployment_toys import EDIT, saved

from mmkd.commands import main
from mmkd.deployment.exporting import export
from mmkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_retinanet


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr('mmkd.analysis.complexity.SECONDS', 0)


@pytest.mark.parametrize(
    ('edit', 'words'),
    [
        (EDIT, '8 weights of 4 bits as int4, 2 weights of 8 bits as int8'),
        (dict(EDIT, bits=3, form='lsq', acts=4), '8 weights of 3 bits as int4'),
    ],
    ids=['weights', 'both'],
)
def test_the_file_computes_the_same(tmp_path, edit, words):
    import onnxruntime

    x = torch.rand(2, 3, 16, 16)
    config, trained = saved(tmp_path / 'x.pth', tiny_classifier(4), edit, calibrate=x)
    out = str(tmp_path / 'x.onnx')
    lines = export(config, str(tmp_path / 'x.pth'), out, (16, 16))
    assert words in lines[0] and out in lines[-1]
    assert ' KiB ' in lines[-3] and ' ms ' in lines[-3]
    pixels = torch.rand(1, 3, 16, 16) * 255
    options = onnxruntime.SessionOptions()  # else it rounds biases as well
    options.add_session_config_entry('session.disable_quant_qdq', '1')
    session = onnxruntime.InferenceSession(out, options, providers=['CPUExecutionProvider'])
    (found,) = session.run(None, {'pixels': pixels.numpy()})
    preprocessor = trained.data_preprocessor
    with torch.no_grad():
        wanted = trained((pixels - preprocessor.mean) / preprocessor.std)
    torch.testing.assert_close(torch.from_numpy(found), wanted, atol=1e-4, rtol=1e-4)


def test_weights_of_few_bits_are_not_rounded_again(tmp_path):
    config, _ = saved(tmp_path / 'x.pth', tiny_classifier(4), EDIT)
    with pytest.raises(ValueError, match='were trained with few bits. Leave --bits out'):
        export(config, str(tmp_path / 'x.pth'), str(tmp_path / 'x.onnx'), (16, 16), bits=[8])


def test_a_student_of_grey_images(tmp_path):
    grey = tiny_classifier(4, kind='mmdet', backbone=dict(in_channels=1))
    grey['data_preprocessor'] = dict(mean=[100.0], std=[50.0])
    config, _ = saved(tmp_path / 'x.pth', grey)
    lines = export(config, str(tmp_path / 'x.pth'), str(tmp_path / 'x.onnx'), (32, 32))
    assert any(line.startswith('float32 ') for line in lines)


def test_a_detector_by_the_command(tmp_path, capsys):
    config, _ = saved(tmp_path / 'x.pth', tiny_retinanet(4), EDIT, scope='mmdet')
    config.dump(tmp_path / 'x.py')
    out = str(tmp_path / 'x.onnx')
    words = [str(tmp_path / 'x.py'), str(tmp_path / 'x.pth'), '--out', out, '--size', '64', '64']
    main(['export', *words])
    text = capsys.readouterr().out
    assert 'weights of 4 bits as int4' in text and 'float32 ' in text and 'quantised ' in text
    main(['export', *words, '--float'])
    assert 'int4' not in capsys.readouterr().out


def test_the_body_of_a_two_stage_detector(tmp_path):
    config, _ = saved(tmp_path / 'x.pth', tiny_faster_rcnn(4), EDIT, scope='mmdet')
    given = str(tmp_path / 'x.pth'), str(tmp_path / 'x.onnx'), (64, 64)
    lines = export(config, *given, part='body')
    assert 'not as whole numbers' not in lines[0]
    with pytest.raises(ValueError, match='Take --part body'):
        export(config, *given)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(part='head'), "--part must be one of .* found 'head'"),
        (dict(size=(0, 64)), '--size must be a whole number of at least 1'),
        (dict(bits=[32]), '--bits must be a whole number'),
    ],
)
def test_bad_input_is_refused(tmp_path, options, message):
    options = dict(size=(64, 64)) | options
    with pytest.raises(ValueError, match=message):
        export(None, 'x.pth', 'x.onnx', **options)
