"""Measurements: costs, gradients, routes, what fits a pair, comparisons of models."""
