"""A step and a prediction of every tiny model: as with the compiled operators.

The losses stand here too, measured with the compiled ones, so that the test means something where
there are none.
"""

import pytest
import torch

from mmkd import testing
from mmkd.config import load_config
from mmkd.teacher import build_model
from mmkd.testing import shrink

REPPOINTS = 'mmdet::reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py'
#: model, batch, sum of its losses with mmcv's compiled operators
MODELS = {
    'faster_rcnn': (testing.tiny_faster_rcnn, testing.detection_batch, 2.77929),
    'retinanet': (testing.tiny_retinanet, testing.detection_batch, 768.879),
    'gfl': (testing.tiny_gfl, testing.detection_batch, 9.00023),
    'fcos': (testing.tiny_fcos, testing.detection_batch, 9.61897),
    'yolov3': (testing.tiny_yolov3, testing.detection_batch, 372.493),
    'detr': (testing.tiny_detr, testing.detection_batch, 12.2627),
    'pspnet': (testing.tiny_pspnet, testing.segmentation_batch, 0.97298),
    'classifier': (testing.tiny_classifier, testing.classification_batch, 1.04915),
    # deformable convolutions
    'reppoints': (lambda: shrink(load_config(REPPOINTS).model), testing.detection_batch, 807.646),
}


def step(make, batch):
    """Losses, gradients and predicted scores of a new model, whose numbers are always the same."""
    torch.manual_seed(0)
    model = build_model(make())
    pixels, samples = batch()
    losses = model(pixels, samples, mode='loss')
    total = model.parse_losses(losses)[0]
    total.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.eval()
    with torch.no_grad():
        predictions = model(pixels, samples, mode='predict')
    scores = [
        p.pred_instances.scores
        for p in predictions
        if 'pred_instances' in p and len(p.pred_instances)
    ]
    return total.detach(), gradients, scores


@pytest.mark.parametrize('name', MODELS)
def test_losses_gradients_and_predictions(both, name):
    make, batch, known = MODELS[name]
    (loss, gradients, scores), others = both(lambda: step(make, batch))
    assert loss.item() == pytest.approx(known, rel=1e-3)
    for wanted_loss, wanted_gradients, wanted_scores in others:
        torch.testing.assert_close(loss, wanted_loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(scores, wanted_scores, rtol=1e-5, atol=1e-6)
        assert gradients.keys() == wanted_gradients.keys()
        for key, wanted in wanted_gradients.items():
            assert (gradients[key] - wanted).norm() <= 1e-4 * wanted.norm() + 1e-6, key
