"""Engines that continue prompts, each in a process of its own.

Run as a script: ``python contenders.py NAME MODEL THREADS FOLDER DEVICE`` reads requests, one JSON
list a line, and answers each with a line. It imports nothing of this package but for ours, so that
other engines can live in an environment of their own. A request is ``[batch, prompt tokens, new
tokens]``; the answer has the seconds that the call took. Prompts are random tokens; every engine
generates greedily and past its end of sequence.

::

    sharpen                ours, the model as it is in its folder; also on CUDA devices
    hf-...                 transformers' generate; -float32, -bfloat16, -int8 (dynamic, by torch);
                           the first two also on CUDA devices
    ctranslate2-...        converted once into FOLDER; -float32, -int8
    onnx-...               onnxruntime-genai, built once into FOLDER; -float32, -int4
    openvino-...           openvino-genai, exported by the command optimum-cli (optimum-intel),
                           which may be another environment's; -float32, -bfloat16
    llama.cpp              llama-cpp-python on a .gguf file
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["CONTENDERS", "ON_CUDA", "missing"]

Generate = Callable[[list[list[int]], int], int]
"""Continues prompts by so many tokens each; returns how many tokens came."""

# Name: modules it needs, and the kind of weights.
CONTENDERS: dict[str, tuple[tuple[str, ...], str]] = {
    "sharpen": (("sharpen",), "as stored"),
    "hf-float32": (("transformers", "torch"), "float32"),
    "hf-bfloat16": (("transformers", "torch"), "bfloat16"),
    "hf-int8": (("transformers", "torch"), "int8"),
    "ctranslate2-float32": (("ctranslate2", "transformers"), "float32"),
    "ctranslate2-int8": (("ctranslate2", "transformers"), "int8"),
    "onnx-float32": (("onnxruntime_genai", "onnx_ir"), "float32"),
    "onnx-int4": (("onnxruntime_genai", "onnx_ir"), "int4"),
    "openvino-float32": (("openvino_genai",), "float32"),
    "openvino-bfloat16": (("openvino_genai",), "bfloat16"),
    "llama.cpp": (("llama_cpp",), "as in the .gguf file"),
}


ON_CUDA = ("sharpen", "hf-float32", "hf-bfloat16")
"""Those that also run on CUDA devices."""


def missing(name: str) -> list[str]:
    """Modules of a contender that this interpreter lacks."""
    return [module for module in CONTENDERS[name][0] if importlib.util.find_spec(module) is None]


def make(name: str, model: str, threads: int, folder: Path, device: str) -> Generate:
    """Load an engine."""
    kind, _, precision = name.partition("-")
    if kind == "sharpen":
        return _ours(model, threads, device)
    if kind == "hf":
        return _transformers(model, precision, threads, device)
    if kind == "ctranslate2":
        return _ctranslate2(model, precision, threads, folder)
    if kind == "onnx":
        return _onnx(model, precision, folder)
    if kind == "openvino":
        return _openvino(model, precision, threads, folder)
    return _llama_cpp(model, threads)


def _ours(model: str, threads: int, device: str) -> Generate:
    import torch

    from sharpen.serve.llm import LLM
    from sharpen.serve.sampling import SamplingParams

    torch.set_num_threads(threads)
    settings: dict[str, Any] = {"max_batch": 64}
    if device != "cpu":  # others are in the device's memory, too
        settings = {"max_batch": 256, "kv_cache_memory": "16GiB"}
    llm = LLM(model, prefix_caching=False, device=device, **settings)

    def generate(prompts: list[list[int]], count: int) -> int:
        params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
        done = llm.generate(prompts, params)
        return sum(len(one.outputs[0].ids) for one in done)

    return generate


def _transformers(model: str, precision: str, threads: int, device: str) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    loaded = loaded.to(device)
    if precision == "int8":
        torch.backends.quantized.engine = "x86"
        quantize: Any = torch.ao.quantization.quantize_dynamic
        loaded = quantize(loaded, {torch.nn.Linear})

    def generate(prompts: list[list[int]], count: int) -> int:
        ids = torch.tensor(prompts, device=device)
        with torch.inference_mode():
            out = loaded.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=count,
                max_new_tokens=count,
                pad_token_id=0,
            )
        return int(out.numel() - ids.numel())

    return generate


def _ctranslate2(model: str, precision: str, threads: int, folder: Path) -> Generate:
    import ctranslate2

    target = folder / f"ctranslate2-{precision}"
    if not target.exists():
        converter = ctranslate2.converters.TransformersConverter(model)
        converter.convert(str(target), quantization=precision)
        path = target / "config.json"
        config = json.loads(path.read_text())
        for special in ("bos_token", "eos_token", "unk_token"):
            config[special] = config.get(special) or "<unk>"  # it loads no null
        path.write_text(json.dumps(config))
    engine = ctranslate2.Generator(
        str(target), device="cpu", intra_threads=threads, inter_threads=1, compute_type=precision
    )
    vocabulary = json.loads((target / "vocabulary.json").read_text())

    def generate(prompts: list[list[int]], count: int) -> int:
        rows = [[vocabulary[token] for token in prompt] for prompt in prompts]
        found = engine.generate_batch(
            rows,
            max_length=count,
            min_length=count,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=[],
        )
        return sum(len(one.sequences_ids[0]) for one in found)

    return generate


def _onnx(model: str, precision: str, folder: Path) -> Generate:
    import onnxruntime_genai as genai

    target = folder / f"onnx-{precision}"
    if not target.exists():
        short = "fp32" if precision == "float32" else "int4"
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", model]
        command += ["-o", str(target), "-p", short, "-e", "cpu", "-c", str(folder / "cache")]
        subprocess.run(command, check=True, stdout=sys.stderr)
    loaded = genai.Model(str(target))  # it takes as many threads as the process has cores

    def generate(prompts: list[list[int]], count: int) -> int:
        length = len(prompts[0]) + count
        params = genai.GeneratorParams(loaded)
        params.set_search_options(
            max_length=length, min_length=length, batch_size=len(prompts), do_sample=False
        )
        generator = genai.Generator(loaded, params)
        generator.append_tokens(prompts if len(prompts) > 1 else prompts[0])
        made = 0
        while made < count:
            generator.generate_next_token()
            made += 1
        return made * len(prompts)

    return generate


def _openvino(model: str, precision: str, threads: int, folder: Path) -> Generate:
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    target = folder / "openvino"
    if not target.exists():
        command = ["optimum-cli", "export", "openvino", "-m", model, "--weight-format", "fp32"]
        command += ["--task", "text-generation-with-past", str(target)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    hint = ov.Type.bf16 if precision == "bfloat16" else ov.Type.f32
    pipeline = genai.LLMPipeline(
        str(target), "CPU", INFERENCE_PRECISION_HINT=hint, INFERENCE_NUM_THREADS=threads
    )

    def generate(prompts: list[list[int]], count: int) -> int:
        config = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = count
        config.ignore_eos = True
        ids = ov.Tensor(np.array(prompts, dtype=np.int64))
        inputs = genai.TokenizedInputs(ids, ov.Tensor(np.ones_like(np.array(prompts))))
        return sum(len(tokens) for tokens in pipeline.generate(inputs, config).tokens)

    return generate


def _llama_cpp(model: str, threads: int) -> Generate:
    import llama_cpp as api
    import numpy as np

    api.llama_backend_init()
    loaded = api.llama_model_load_from_file(model.encode(), api.llama_model_default_params())
    size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(loaded))
    contexts: dict[int, Any] = {}

    def context_of(count: int) -> Any:
        if count not in contexts:
            settings = api.llama_context_default_params()
            settings.n_ctx, settings.n_seq_max = count * 1024, count
            settings.n_threads = settings.n_threads_batch = threads
            contexts[count] = api.llama_init_from_model(loaded, settings)
        return contexts[count]

    def generate(prompts: list[list[int]], count: int) -> int:
        context, n = context_of(len(prompts)), len(prompts)
        api.llama_memory_clear(api.llama_get_memory(context), True)
        rows, start, made = prompts, 0, 0
        batch = api.llama_batch_init(n * len(prompts[0]), 0, 1)
        while True:
            at = _fill(batch, rows, start)
            if api.llama_decode(context, batch):
                raise RuntimeError("llama_decode failed")
            logits = [api.llama_get_logits_ith(context, i) for i in at]
            chosen = [int(np.ctypeslib.as_array(row, (size,)).argmax()) for row in logits]
            made, start = made + 1, start + len(rows[0])
            if made == count:
                api.llama_batch_free(batch)
                return made * n
            rows = [[token] for token in chosen]

    return generate


def _fill(batch: Any, rows: list[list[int]], start: int) -> list[int]:
    """Put the next tokens of every sequence in; returns where the last one of each is."""
    i, last = 0, []
    for sequence, row in enumerate(rows):
        for offset, token in enumerate(row):
            batch.token[i], batch.pos[i] = token, start + offset
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = offset == len(row) - 1
            i += 1
        last.append(i - 1)
    batch.n_tokens = i
    return last


def _main() -> None:
    name, model, threads, folder, device = sys.argv[1:6]
    os.environ["OMP_NUM_THREADS"] = threads
    if hasattr(os, "sched_setaffinity"):  # for engines that ask the machine and not the variable
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print is no answer
    with contextlib.redirect_stdout(sys.stderr):
        generate = make(name, model, int(threads), Path(folder), device)
        vocabulary = 1000
        answers.write(json.dumps({"ready": True}) + "\n")
        answers.flush()
        chance = random.Random(0)
        for line in sys.stdin:
            batch, length, count = json.loads(line)
            prompts = [
                [chance.randrange(5, vocabulary) for _ in range(length)] for _ in range(batch)
            ]
            answer: dict[str, Any]
            try:
                begin = time.perf_counter()
                made = generate(prompts, count)
                answer = {"seconds": time.perf_counter() - begin, "tokens": made}
            except Exception as error:  # a contender that cannot is a row, not an end
                answer = {"error": f"{type(error).__name__}: {error}"[:300]}
            answer["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    _main()
