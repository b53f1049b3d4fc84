"""The page of error messages and the source agree, in both directions."""

import re

import pytest
from messages import ROOT, fits, raised, strings

PAGE = (ROOT / 'docs' / 'troubleshooting.md').read_text()
QUOTED = re.findall(r'^### `(.+)`$', PAGE, re.MULTILINE)
SOURCES = sorted((ROOT / 'mmkd').rglob('*.py'))
# Messages of methods, which begin with its name and say what to do, and of functions that no user
# calls from a config: the message is all there is.
SELF_EXPLAINING = (
    'methods',
    'families',
    'rows',
    'view.py',
    'visualization',
    'datasets/scenes.py',
    'datasets/synthetic.py',
)


@pytest.fixture(scope='module')
def texts():
    return {text for path in SOURCES for text in strings(path)}


@pytest.mark.parametrize('quoted', QUOTED)
def test_quoted_message_is_in_the_source(quoted, texts):
    assert any(fits(quoted, text) for text in texts), f'no message of mmkd reads {quoted!r}'


def test_every_message_is_explained():
    unexplained = []
    for path in SOURCES:
        name = path.relative_to(ROOT / 'mmkd').as_posix()
        if name.startswith(SELF_EXPLAINING):
            continue
        for kind, text in raised(path):
            words = re.search(r'[a-z]{3}\W.*[a-z]{3}', text)  # else it passes on another message
            inner = kind in (
                'NotImplementedError',
                'pickle.UnpicklingError',
                'Unsafe',
                'type(error)',
            )
            if words and not inner and not any(fits(quoted, text) for quoted in QUOTED):
                unexplained.append(f'{name}: {text}')
    assert not unexplained, 'add to docs/troubleshooting.md: ' + '\n'.join(unexplained)
