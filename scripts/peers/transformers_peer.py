"""transformers on the CPU, used as its documentation shows. OMP_NUM_THREADS sets the threads.

usage: transformers_peer.py generate MODEL TEXTS.json TOKENS   tokens per second at batch 1 and with all
                                                               texts at once, and the encoder's time
       transformers_peer.py load MODEL                         seconds until the model is in memory
"""

import json
import os
import sys
import time

import torch
import transformers

REPEAT = 5


def best(run):
    """The fastest of several runs, after a warm-up: other load on the machine only makes runs slower."""
    run()
    times = []
    for _ in range(REPEAT):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def generate(folder, texts, tokens):
    with open(texts, encoding="utf-8") as file:
        texts = json.load(file)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()

    def run(batch):
        inputs = tokenizer(batch, return_tensors="pt", padding=True)
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=tokens, min_new_tokens=tokens)
        if out.shape != (len(batch), tokens + 1):
            sys.exit(f"{tuple(out.shape)} ids instead of {tokens} for each text")

    def encode():
        inputs = tokenizer(texts[:1], return_tensors="pt")
        with torch.inference_mode():
            model.get_encoder()(**inputs)

    print(json.dumps({
        "one_tokens_s": tokens / best(lambda: run(texts[:1])),
        "all_tokens_s": tokens * len(texts) / best(lambda: run(texts)),
        "encoder_ms": best(encode) * 1e3,
    }), flush=True)


def load(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        architecture = json.load(file)["architectures"][0]
    # Imports are not part of loading.
    model_class = getattr(transformers, architecture)
    transformers.AutoConfig.from_pretrained(folder)
    start = time.perf_counter()
    model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    # Weights may still be mapped from the file: only using them loads them.
    total = sum(parameter.sum().item() for parameter in model.parameters())
    print(json.dumps({"seconds": time.perf_counter() - start, "total": total}), flush=True)


def main():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    match sys.argv[1:]:
        case ["generate", folder, texts, tokens]:
            generate(folder, texts, int(tokens))
        case ["load", folder]:
            load(folder)
        case _:
            sys.exit(__doc__)


main()
