"""``sharpen data lm``, ``quality`` and ``bitcipher``: models of texts, trained on yours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sharpen.cli.common import Output, command, new_app

__all__ = ["register"]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Corpus = Annotated[
    list[Path],
    typer.Argument(help="Files or folders of JSONL, Parquet or text.", show_default=False),
]
ModelFile = Annotated[Path, typer.Argument(help="The model's file.", show_default=False)]
TextKey = Annotated[str, typer.Option(help="Where a row's text stands: a.b is b of a.")]
Target = Annotated[Path, typer.Option("--output", "-o", help="The file to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file that is there.")]


def register(app: typer.Typer) -> None:
    """Add the groups of commands to ``app``."""
    language_models = new_app("Language models of n-grams: train them, score texts.")
    app.add_typer(language_models, name="lm")
    _lm_train(language_models)
    _lm_score(language_models)
    quality = new_app("Classifiers of texts: train them on examples, score texts.")
    app.add_typer(quality, name="quality")
    _quality_train(quality)
    _quality_score(quality)
    bitcipher = new_app("Word vectors from codes, without training.")
    app.add_typer(bitcipher, name="bitcipher")
    _bitcipher_fit(bitcipher)
    _bitcipher_similar(bitcipher)


def _refuse_present(path: Path, force: bool) -> None:
    from sharpen.core.errors import ConfigError

    if path.exists() and not force:
        raise ConfigError(f"{path} is there already; --force replaces it.")


def _lm_train(app: typer.Typer) -> None:
    @command(app, "train", example="sharpen data lm train good.jsonl -o good.bin --order 5")
    def train(
        corpus: Corpus,
        output: Target,
        order: Annotated[int, typer.Option(help="Most words of an n-gram.")] = 5,
        prune: Annotated[
            str, typer.Option(help="Leave out n-grams seen so often or less, by order: 0,0,1.")
        ] = "0",
        lines: Annotated[
            bool, typer.Option("--lines", help="Each line is a sentence, not each text.")
        ] = False,
        text_key: TextKey = "text",
        force: Force = False,
    ) -> Output:
        """Train by interpolated modified Kneser-Ney; .arpa and .arpa.gz write that format."""
        from sharpen.core.errors import ConfigError
        from sharpen.data.ngram import train, write_arpa

        _refuse_present(output, force)
        try:
            limits = [int(part) for part in prune.split(",")]
        except ValueError:
            raise ConfigError(f"--prune {prune}: give numbers parted by commas: 0,0,1.") from None
        model = train(corpus, order, prune=limits, lines=lines, text_key=text_key)
        if output.name.lower().endswith((".arpa", ".arpa.gz")):
            write_arpa(model, output)
        else:
            model.save(output)
        document = {
            "output": str(output),
            "order": model.order,
            "ngrams": model.ngrams,
            **{key: model.about[key] for key in ("tokens", "sentences", "discounts")},
        }

        def render(console: Any) -> None:
            counts = ", ".join(f"{count:,}" for count in model.ngrams)
            console.print(f"{document['tokens']:,} words and ends of {document['sentences']:,}")
            console.print(f"n-grams of 1 to {model.order} words: {counts}")
            console.print(f"{output}")

        return Output({"format": 1, **document}, render)


def _lm_score(app: typer.Typer) -> None:
    @command(app, "score", example="sharpen data lm score good.bin corpus.jsonl")
    def score(model: ModelFile, corpus: Corpus, text_key: TextKey = "text") -> Output:
        """Perplexities of texts: which of them a bound of the filter would keep."""
        from sharpen.data.columns import columns_of
        from sharpen.data.ngram import load_model

        held = load_model(model)
        columns = columns_of(corpus, text_key)
        return _quantiles("perplexity", (held.perplexities(texts) for texts in columns))


def _quality_train(app: typer.Typer) -> None:
    example = "sharpen data quality train --good books.jsonl --bad crawl.jsonl -o good.safetensors"

    @command(app, "train", example=example)
    def train(
        good: Annotated[list[Path], typer.Option(help="Files of what is wanted.")],
        bad: Annotated[list[Path], typer.Option(help="Files of what is not.")],
        output: Target,
        order: Annotated[int, typer.Option(help="Most words of an n-gram.")] = 2,
        bits: Annotated[int, typer.Option(help="N-grams share 2^bits weights.")] = 18,
        strength: Annotated[float, typer.Option(help="C: less shrinks weights more.")] = 100.0,
        held_out: Annotated[float, typer.Option(help="Share of texts that judge the model.")] = 0.1,
        seed: Annotated[int, typer.Option(help="Which texts those are.")] = 0,
        text_key: TextKey = "text",
        force: Force = False,
    ) -> Output:
        """Train a logistic regression on hashed n-grams, judged by texts that it has not seen."""
        from sharpen.data.quality import train

        _refuse_present(output, force)
        settings = {"order": order, "bits": bits, "strength": strength, "held_out": held_out}
        model = train(good, bad, **settings, seed=seed, text_key=text_key)  # type: ignore[arg-type]
        model.save(output)
        metrics = model.metrics.to_json()

        def render(console: Any) -> None:
            console.print(f"of {metrics['texts']:,} texts that were held out:")
            for name in ("auc", "accuracy", "log_loss", "calibration_error"):
                console.print(f"  {name.replace('_', ' ')} {metrics[name]:.4f}")
            console.print(f"{output}")

        document = {"output": str(output), "metrics": metrics, **model.about}
        return Output({"format": 1, **document}, render)


def _quality_score(app: typer.Typer) -> None:
    @command(app, "score", example="sharpen data quality score good.safetensors corpus.jsonl")
    def score(model: ModelFile, corpus: Corpus, text_key: TextKey = "text") -> Output:
        """Scores of texts: which of them a bound of the filter would keep."""
        from sharpen.data.columns import columns_of
        from sharpen.data.quality import QualityModel

        held = QualityModel.load(model)
        columns = columns_of(corpus, text_key)
        return _quantiles("quality_score", (held.score(texts) for texts in columns))


def _bitcipher_fit(app: typer.Typer) -> None:
    @command(app, "fit", example="sharpen data bitcipher fit corpus.jsonl -o words.safetensors")
    def fit(
        corpus: Corpus,
        output: Target,
        bits: Annotated[int, typer.Option(help="Bits of a code.")] = 100,
        window: Annotated[int, typer.Option(help="Words on each side that count.")] = 4,
        mode: Annotated[str, typer.Option(help="sum, or concat: a block for each offset.")] = "sum",
        weight: Annotated[str, typer.Option(help="Of a count: log, ppmi or count.")] = "log",
        min_count: Annotated[int, typer.Option(help="Leave out rarer words.")] = 5,
        max_vocab: Annotated[int | None, typer.Option(help="At most so many words.")] = None,
        lowercase: Annotated[
            bool, typer.Option("--lowercase", help="Take upper and lower case for equal.")
        ] = False,
        force: Force = False,
    ) -> Output:
        """Make a vector for each frequent word of a corpus, in one pass."""
        from sharpen.core.config import from_dict
        from sharpen.data.bitcipher import BitCipher

        _refuse_present(output, force)
        settings = {"bits": bits, "window": window, "mode": mode, "weight": weight}
        rest = {"min_count": min_count, "max_vocab": max_vocab, "lowercase": lowercase}
        vectors = from_dict(BitCipher, {**settings, **rest}).fit(corpus)
        vectors.save(output)
        document = {"output": str(output), "words": len(vectors)}
        document["dimensions"] = vectors.vectors.shape[1]

        def render(console: Any) -> None:
            console.print(f"{document['words']:,} words, {document['dimensions']} dimensions")
            console.print(f"{output}")

        return Output({"format": 1, **document, **settings, **rest}, render)


def _bitcipher_similar(app: typer.Typer) -> None:
    @command(app, "similar", example="sharpen data bitcipher similar words.safetensors kernel")
    def similar(
        model: ModelFile,
        word: Annotated[str, typer.Argument(help="The word.", show_default=False)],
        n: Annotated[int, typer.Option(help="How many.", min=1)] = 10,
    ) -> Output:
        """The words whose vectors point most nearly the same way."""
        from sharpen.data.bitcipher import WordVectors

        found = WordVectors.load(model).most_similar(word, n)

        def render(console: Any) -> None:
            for other, cosine in found:
                console.print(f"{cosine:.3f}  {other}", markup=False)

        rows = [{"word": other, "cosine": cosine} for other, cosine in found]
        return Output({"format": 1, "word": word, "similar": rows}, render)


def _quantiles(name: str, values: Any) -> Output:
    """How a statistic of texts is spread."""
    import numpy as np

    from sharpen.core.errors import DataError

    whole = np.concatenate([np.zeros(0), *values])
    if not len(whole):
        raise DataError("there are no texts to score.")
    found = dict(zip(map(str, _QUANTILES), np.quantile(whole, _QUANTILES).tolist(), strict=True))
    document = {"statistic": name, "texts": len(whole), "mean": float(whole.mean())}

    def render(console: Any) -> None:
        from rich.table import Table

        table = Table("share of texts", f"{name} up to", box=None, header_style="bold")
        for share, value in found.items():
            table.add_row(f"{float(share):.0%}", f"{value:,.4g}")
        console.print(table)
        console.print(f"{len(whole):,} texts, mean {document['mean']:,.4g}")

    return Output({"format": 1, **document, "quantiles": found}, render)
