"""Measurements: cost of a step, gradients, routes, what fits a pair, comparisons."""
