"""Answers that the tests of black boxes ask for."""

import numpy as np

SEEN = []


def thirds(images):
    """Uniform probabilities of three classes; remembers the images."""
    SEEN.append(images)
    return np.full((len(images), 3), 1 / 3)


def brightness(images):
    """Probabilities by the mean of each channel."""
    means = images.reshape(len(images), -1, 3).mean(1) / 64
    e = np.exp(means - means.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


NOT_A_FUNCTION = 3
