"""sentence-transformers on the CPU, used as its documentation shows. OMP_NUM_THREADS sets the threads.

usage: sentence_transformers_peer.py inference MODEL CORPUS.jsonl SAMPLES
       sentence_transformers_peer.py hold MODEL      {"ready":true} after 32 texts, then waits for
                                                     the end of standard input
       sentence_transformers_peer.py first MODEL     {"done":true} after one text
"""

import json
import sys

from sentence_transformers import SentenceTransformer

TEXT = "The quick brown fox jumps over the lazy dog."


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    mode, folder, *rest = sys.argv[1:]
    model = SentenceTransformer(folder, device="cpu")

    def embed(texts, batch=32):
        return model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)

    if mode == "first":
        embed([TEXT])
        print(json.dumps({"done": True}), flush=True)
    elif mode == "hold":
        embed([f"{TEXT} Number {number}." for number in range(32)])
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.read()
    elif mode == "inference":
        from measure import measure

        corpus, samples = rest
        count = lambda texts: sum(
            len(ids) for ids in model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"])
        measure("sentence-transformers", corpus, int(samples), embed, count)
    else:
        sys.exit(__doc__)


main()
