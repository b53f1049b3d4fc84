"""Checks before and during the first steps: data, labels, teachers, terms, gradients."""
