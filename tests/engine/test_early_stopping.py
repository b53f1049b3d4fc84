"""Patience is counted on after an interruption."""


def test_patience_is_not_renewed(chain):
    """Stock keeps the count of an EarlyStoppingHook to itself."""
    stop = dict(type='EarlyStoppingHook', monitor='mean', rule='greater', patience=2, min_delta=9)
    loop = dict(by_epoch=True, max_epochs=5)
    whole, _ = chain('epoch_2.pth', val={}, loop=loop, hooks=[stop])
    assert sorted(whole.metrics) == [7, 14, 21]
