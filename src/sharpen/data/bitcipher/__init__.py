"""Word vectors without back-propagation: sums of the codes of what stands around a word."""

from sharpen.data.bitcipher.codes import Codes, make_codes
from sharpen.data.bitcipher.model import BitCipher, WordVectors
from sharpen.data.bitcipher.probe import Probed, probe

__all__ = ["BitCipher", "Codes", "Probed", "WordVectors", "make_codes", "probe"]
