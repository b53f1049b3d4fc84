"""How far a classifier's scores are from how often it is right, and why it is uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmkd.functional.dirichlet import concentrations, uncertainties
from mmkd.options import check_number
from mmkd.registry import METRICS


def expected_error(confidence: Tensor, right: Tensor, bins: int) -> float:
    """``sum_b n_b / n |share of right ones in b - mean confidence in b|``, bins of equal width.

    Args:
        confidence (Tensor): highest score of each sample, (n,), in [0, 1].
        right (Tensor): whether that class is the true one, (n,).
        bins (int): number of bins; a confidence on an edge belongs to the lower one.
    """
    place = (confidence.double() * bins).ceil().long().sub(1).clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64)
    gaps.index_add_(0, place, right.double() - confidence.double())
    return float(gaps.abs().sum() / len(confidence))


@METRICS.register_module()
class Calibration(BaseMetric):
    """Expected calibration error (``ece``, in percent), negative log-likelihood and Brier score.

    ``ece`` is that of Guo et al., ICML 2017; ``nll``, in nats, and ``brier`` are means over images.
    With ``dirichlet`` also the mean entropies of :class:`~mmkd.methods.endd.EnDD`, in nats:
    ``total``, ``data`` and ``knowledge``, see :func:`~mmkd.functional.dirichlet.uncertainties`.

    Args:
        bins (int): bins of ``ece``.
        dirichlet (bool): logits are logarithms of a Dirichlet distribution's concentrations.
        **kwargs: of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: no bin; ``dirichlet`` for predictions without ``pred_logit``.
    """

    default_prefix = ''  # not None, of which mmengine complains

    def __init__(self, bins: int = 15, dirichlet: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = check_number('Calibration', 'bins', bins, 1, whole=True)
        self.dirichlet = dirichlet

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note for each sample (``pred_score``, ``gt_label``) what the means are made of."""
        for sample in data_samples:
            score = sample['pred_score'].double().cpu()
            label = int(sample['gt_label'])
            row = [float(score.max()), float(score.argmax() == label)]
            log = score.clamp(min=1e-12).log()
            if 'pred_logit' in sample:  # does not underflow
                log = sample['pred_logit'].double().cpu().log_softmax(0)
            row.append(-float(log[label]))
            row.append(float(score.square().sum() - 2 * score[label] + 1))
            if self.dirichlet:
                if 'pred_logit' not in sample:
                    raise ValueError(
                        'Calibration: dirichlet=True needs the logits of each prediction, which '
                        'mmkd.Classifier gives (pred_logit), and these samples have none.'
                    )
                alpha = concentrations(sample['pred_logit'].cpu())
                row += [float(value) for value in uncertainties(alpha).values()]
            self.results.append(row)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Means over all samples."""
        table = torch.tensor(results, dtype=torch.float64)
        names = ['nll', 'brier', *(['total', 'data', 'knowledge'] if self.dirichlet else [])]
        means = dict(zip(names, table[:, 2:].mean(0).tolist(), strict=True))
        return {'ece': 100 * expected_error(table[:, 0], table[:, 1], self.bins), **means}
