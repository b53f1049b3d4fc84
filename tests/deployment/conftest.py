"""The images of the chains' tests, for all tests of deployment."""

from chain_toys import images  # noqa: F401  (a fixture)
