"""Pure tensor functions used by at least two methods."""

from mmkd.functional.checks import (
    check_at_least,
    check_choice,
    check_factors,
    check_temperature,
    weight_or,
)

__all__ = ['check_at_least', 'check_choice', 'check_factors', 'check_temperature', 'weight_or']
