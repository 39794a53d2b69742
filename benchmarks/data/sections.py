"""The numbers of the pages on data, from ``benchmarks/results``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.data.clean_sections import minhash, minhash_recall, recipe
from benchmarks.data.datajuicer_section import datajuicer_equality

__all__ = ["SECTIONS"]


def ngram(document: dict[str, Any], where: str) -> str:
    """Training and scoring beside NLTK and KenLM."""
    r = document["results"]
    train, score, large, versions = r["training"], r["scoring"], r["documentation"], r["versions"]
    nltk = train["tokens"] / statistics.median(train["nltk_cpu_s"])
    names = {"lmplz": "lmplz", "sharpen, ARPA": "ours with an ARPA file"}
    names["sharpen, own file"] = "with its own file"
    lmplz = []
    for title in ("whole", "pruned"):
        spent = r["lmplz"][title]["cpu_s"].items()
        told = ", ".join(f"{names[key]} {statistics.median(each):.2f}" for key, each in spent)
        lmplz.append(f"{title}, {told}")
    gap = max(r["lmplz"][name]["largest_gap_a_word"] for name in ("whole", "pruned"))
    lines = [
        "| million words a CPU second, one thread | Sharpen | peer | ratio |",
        "| --- | ---: | ---: | ---: |",
        f"| training, order 3, {train['tokens']:,} words of Brown; NLTK {versions['nltk']}, one "
        f"discount | {train['sharpen_tokens_per_s'] / 1e6:.2f} | {nltk / 1e6:.3f} | "
        f"{train['ratio']:.0f} x |",
        f"| scoring, order 5, {score['tokens']:,} words of Brown that training has not seen; KenLM "
        f"{versions['kenlm']} | {score['sharpen_tokens_per_s'] / 1e6:.1f} | "
        f"{score['kenlm_tokens_per_s'] / 1e6:.1f} | {score['ratio']:.2f} x |",
        "",
        f"Order 5 on the {r['lmplz']['words'] / 1e6:.2f} million words and ends of Brown beside "
        f"KenLM's own trainer, CPU seconds: {'; '.join(lmplz)}. The models are the same: a word's "
        f"scores differ by {gap:.1g} at most.",
        "",
        f"The scores of a word differ by {score['largest_gap_a_word']:.1g} at most. Order 5 on "
        f"{large['tokens'] / 1e6:.1f} million words of manuals: {large['cpu_s']:.1f} CPU seconds, "
        f"{sum(large['ngrams']) / 1e6:.1f} million n-grams, "
        f"{(large['rss_peak'] - large['rss_before']) / 2**20:.0f} MiB beside the texts. {where}; "
        "`benchmarks/data/bench_ngram.py`.",
    ]
    return "\n".join(lines)


_QUALITY = {
    "sharpen": "Sharpen, 2^18 buckets",
    "scikit-learn": "HashingVectorizer + LogisticRegression, 2^18 buckets",
    "fasttext": "fastText, its defaults",
    "fasttext-small": "fastText, 2^18 buckets, 10 dimensions, 25 epochs, rate 0.5",
}


def quality(document: dict[str, Any], where: str) -> str:
    """Classifiers beside scikit-learn and fastText."""
    r = document["results"]
    lines = [
        "| | AUC | accuracy | calibration error | CPU s to learn | to score |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, label in _QUALITY.items():
        row = r["mails"]["summary"][name]
        lines.append(
            f"| {label} | {row['auc']:.4f} | {row['accuracy']:.2%} | "
            f"{row['calibration_error']:.4f} | {row['train_cpu_s']:.2f} | "
            f"{row['score_cpu_s']:.3f} |"
        )
    peers = r["mails"]["rows"]["scikit-learn"]["versions"]
    reviews = [f"{name} {row['accuracy']:.0%}" for name, row in r["reviews"]["summary"].items()]
    lines += [
        "",
        f"{r['mails']['texts']:,} e-mails, spam or not, in five folds, n-grams of one and two "
        f"words, one thread; scikit-learn {peers['scikit-learn']}, fastText "
        f"{peers['fasttext-wheel']}. C is {document['config']['C']:.0f} for both regressions; "
        f"fastText's settings were not searched. {r['reviews']['texts']} sentences of film "
        f"reviews are too few for any of them: accuracy {', '.join(reviews)}. {where}; "
        "`benchmarks/data/bench_quality.py`.",
    ]
    return "\n".join(lines)


def language(document: dict[str, Any], where: str) -> str:
    """Languages of snippets beside fastText, lingua and CLD2."""
    r, versions = document["results"], document["results"]["versions"]
    names = {
        "sharpen": "`ngram`, trained on such pages",
        "fasttext": "fastText's lid.176.ftz",
        "lingua": f"lingua {versions['lingua-language-detector']}",
        "cld2": f"pycld2 {versions['pycld2']}",
    }
    lines = [
        f"| share told right | {' | '.join(f'{n} characters' for n in r['rows'])} | "
        "texts of 300 a CPU s |",
        f"| --- |{' ---: |' * (len(r['rows']) + 1)}",
    ]
    for name, label in names.items():
        cells = [f"{row[name]['accuracy']:.1%}" for row in r["rows"].values()]
        speed = r["rows"]["300"][name]["texts_per_cpu_s"]
        lines.append(f"| {label} | {' | '.join(cells)} | {speed:,.0f} |")
    train = r["training"]
    lines += [
        "",
        f"Snippets of Linux manual pages in {train['languages']} languages, "
        f"{r['rows']['300']['snippets']} of each length, from pages that training has not seen; it "
        f"took {train['cpu_s']:.1f} CPU seconds for {train['characters'] / 1e6:.0f} million "
        "characters. The others know more languages and have not learned from manual pages, so "
        "this shows what texts of your own kind are worth, no more. Pages hold commands and "
        "paragraphs that nobody has translated yet: nobody can be right about all. "
        f"{where}; `benchmarks/data/bench_language.py`.",
    ]
    return "\n".join(lines)


def bitcipher(document: dict[str, Any], where: str) -> str:
    """Parts of speech beside word2vec and SVD, and time."""
    r, versions = document["results"], document["results"]["versions"]
    rows, large = r["rows"], r["large"]
    lines = [
        "| vectors of Brown | dimensions | parts of speech | of unseen words | CPU s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        label = name
        if name == "shuffled":
            label = f"{_MAIN}, codes dealt at random"
        elif name not in r.get("claims", {}):
            label = f"bit-cipher, {name}"
        spent = f"{statistics.median(row['cpu_s']):.2f}" if "cpu_s" in row else ""
        lines.append(
            f"| {label} | {row['dimensions']} | {row['accuracy']:.1%} | "
            f"{row['accuracy_unseen']:.1%} | {spent} |"
        )
    base = rows["concat, window 1, 100"]
    claims = [
        f"{'less' if c['times_less_cpu'] > 1 else 'more'} CPU time than {name} by "
        f"{max(c['times_less_cpu'], 1 / c['times_less_cpu']):.0f} x and {c['points']:+.1f} points"
        for name, c in r["claims"].items()
    ]
    timed = [
        f"{name} {statistics.median(row['cpu_s']):.1f} CPU s, "
        f"{statistics.median(row['wall_s']):.1f} s by the clock"
        for name, row in large["rows"].items()
    ]
    lines += [
        "",
        f"Of {base['tokens']:,} words of every fifth document; classifiers learned from the "
        f"others. The most frequent tag of all is right for {base['majority']:.1%}, each word's "
        f"own for {base['word_majority']:.1%}. {_MAIN}: {'; '.join(claims)}. gensim "
        f"{versions['gensim']}, scikit-learn {versions['scikit-learn']}; one thread.",
        "",
        f"{large['words'] / 1e6:.1f} million words of manuals, on two cores that others used, too "
        f"(load {large['load_average'][0]:.0f}): {'; '.join(timed)}. {where}; "
        "`benchmarks/data/bench_bitcipher.py`.",
    ]
    return "\n".join(lines)


_MAIN = "bit-cipher, concat, window 1, 100"


def bitcipher_lm(document: dict[str, Any], where: str) -> str:
    """Losses of language models by the start of their embedding."""
    r, config = document["results"], document["config"]
    lines = [
        f"| start of the embedding | held-out loss after {r['steps']} steps | steps to the loss of "
        "random values | CPU s to make |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, row in r["rows"].items():
        final, steps = row["final"], [s for s in row["steps_to_random"] if s == s]
        reached = f"{statistics.mean(steps):.0f}" if len(steps) == len(final) else "not reached"
        spent = f"{r['cpu_s'][name]:.2f}" if name in r["cpu_s"] else ""
        lines.append(
            f"| {name} | {statistics.mean(final):.3f} ({min(final):.3f} to {max(final):.3f}) | "
            f"{reached} | {spent} |"
        )
    lines += [
        "",
        f"A decoder of {config['layers']} layers and width {config['width']} with a tied embedding "
        f"on Brown, {config['vocabulary']:,} tokens, batches of {config['batch']} x "
        f"{config['context']}, {config['seeds']} seeds, nats a token. {where}; "
        "`benchmarks/data/bench_bitcipher_lm.py`.",
    ]
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any], str], str]]] = {
    "data_bitcipher": ("data_bitcipher", bitcipher),
    "data_bitcipher_lm": ("data_bitcipher_lm", bitcipher_lm),
    "data_language": ("data_language", language),
    "data_minhash": ("data_minhash", minhash),
    "data_minhash_recall": ("data_minhash_recall", minhash_recall),
    "data_datajuicer_equality": ("data_datajuicer_equality", datajuicer_equality),
    "data_ngram": ("data_ngram", ngram),
    "data_quality": ("data_quality", quality),
    "data_recipe": ("data_recipe", recipe),
}
