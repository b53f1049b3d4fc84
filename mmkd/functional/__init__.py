"""Pure tensor functions used by at least two methods."""

from mmkd.functional.checks import (
    check_choice,
    check_factors,
    check_number,
    check_temperature,
    weight_or,
)

__all__ = ['check_choice', 'check_factors', 'check_number', 'check_temperature', 'weight_or']
