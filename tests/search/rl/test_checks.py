import math

import pytest

from sharpen.core.errors import ConfigError
from sharpen.search.rl.checks import check_at_least, check_positive, check_shares, check_widths


def test_what_is_in_range_passes() -> None:
    check_positive("X", rate=1e-9, clip=2)
    check_at_least("X", 2, count=2, other=2.5)
    check_at_least("X", 0, entropy=0.0)
    check_shares("X", first=0, last=1.0)
    check_widths("X", (1,))


def test_what_is_not_is_named_with_its_value_and_owner() -> None:
    for value in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match=rf"clip={value} must be positive \(X\)"):
            check_positive("X", rate=1.0, clip=value)
    with pytest.raises(ConfigError, match=r"count=1 must be at least 2 \(X\)"):
        check_at_least("X", 2, count=1)
    with pytest.raises(ConfigError, match=r"entropy=-1 must not be negative \(X\)"):
        check_at_least("X", 0, entropy=-1)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match=rf"trace={share} must be from 0 to 1 \(X\)"):
            check_shares("X", trace=share)
    for hidden in ((), (4, 0)):
        with pytest.raises(ConfigError, match=r"must be widths of at least 1 \(X\)"):
            check_widths("X", hidden)
