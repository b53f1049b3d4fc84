"""The page of methods by pairs, and its faults."""

import pytest

from mmkd.analysis.compatibility import faults_of, named_methods, page


def result(**changes):
    rows = [
        dict(method='CWD', options={}, reason='', advice=[], crash='', step=''),
        dict(method='AT', options=dict(k=1), reason='', advice=[(dict(k=1), '')], crash='', step=''),
        dict(method='LD', options={}, reason='LD no; CWD does', advice=[], crash='', step=None),
    ]  # fmt: skip
    for row in rows:
        row.update(changes.get(row['method'], {}))
    names = dict(student='mmdet::a/s.py', teacher='mmdet::a/t.py')
    return dict(names, size=256, steps=2, fits=rows)


def test_the_page_counts_faults():
    text, faults = page([result(), result()])
    assert faults == [] and '| CWD | ● | ● |' in text and '| AT | ○ | ○ |' in text
    assert '| AT | `k=1` | 1, 2 |' in text and 'Refused on all of these pairs: LD.' in text
    assert 'disagreed 0 times' in text and '4 of 4 combinations' in text


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        (dict(CWD=dict(step='IndexError: x')), 's <- t: CWD fits, but the step says: IndexError: x'),
        (dict(CWD=dict(crash='KeyError: x')), 's <- t: CWD crashes the plan: KeyError: x'),
        (dict(AT=dict(advice=[(dict(k=2), 'AT: No.'), (dict(k=1), '')])), 's <- t: AT: advised k=2, then AT: No'),
        (dict(LD=dict(reason='LD no; AT does'), AT=dict(reason='AT no')), 's <- t: LD: names AT, which is refused: AT no'),
    ],
)  # fmt: skip
def test_faults(changes, fault):
    assert list(faults_of(result(**changes))) == [fault]
    assert page([result(**changes)])[1] == [fault]


def test_methods_that_a_message_names():
    assert named_methods('LD no; CWD and Cwd do, XY too', {'CWD': 1, 'LD': 2}) == ['LD', 'CWD']
