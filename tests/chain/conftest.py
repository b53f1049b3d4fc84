"""One set of images and configs for all tests of chains."""

from chain_toys import images, paths  # noqa: F401  (fixtures)
