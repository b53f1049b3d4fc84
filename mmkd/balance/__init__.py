"""How much each term counts in a step, decided from the gradients of that step."""

from mmkd.balance.aekd import AEKD
from mmkd.balance.balance import Balance, build_balance, scale_terms
from mmkd.balance.gradient_ratio import GradientRatio

__all__ = ['AEKD', 'Balance', 'GradientRatio', 'build_balance', 'scale_terms']
