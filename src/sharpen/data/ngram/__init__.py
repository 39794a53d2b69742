"""Language models of n-grams: trained on texts, read from ARPA files, asked for perplexities."""

from sharpen.data.ngram.arpa import read_arpa, write_arpa
from sharpen.data.ngram.model import NgramModel, load_model
from sharpen.data.ngram.train import train

__all__ = ["NgramModel", "load_model", "read_arpa", "train", "write_arpa"]
