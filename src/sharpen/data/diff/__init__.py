"""What two data sets differ by."""

from sharpen.data.diff.matching import Difference, diff
from sharpen.data.diff.report import compare, write_difference
from sharpen.data.diff.side import Side

__all__ = ["Difference", "Side", "compare", "diff", "write_difference"]
