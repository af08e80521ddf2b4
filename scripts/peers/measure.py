"""Code that the Python peers share: the corpus, the clock and the JSON line."""

import json
import sys
import time

BATCH = 32
WARM_UP_TEXTS = 256
WARM_UP_QUERIES = 20
QUERIES = 50


def measure(model_name, corpus, samples, embed, count_tokens):
    """Throughput over the whole corpus after a warm-up on its first texts, then the latency of
    single short queries. `embed` takes texts and returns rows, tokenisation included."""
    with open(corpus, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    texts = [line["text"] for line in lines]
    queries = [line["text"] for line in lines if line["kind"] == "query"][:QUERIES]

    embed(texts[:WARM_UP_TEXTS])
    start = time.perf_counter()
    embed(texts)
    seconds = time.perf_counter() - start

    latencies = []
    for sample in range(samples + WARM_UP_QUERIES):
        query = [queries[sample % len(queries)]]
        start = time.perf_counter()
        embed(query)
        if sample >= WARM_UP_QUERIES:
            latencies.append((time.perf_counter() - start) * 1e3)
    latencies.sort()

    tokens = count_tokens(texts)
    print(json.dumps({
        "peer": model_name,
        "texts_s": len(texts) / seconds,
        "tokens_s": tokens / seconds,
        "p50_ms": latencies[len(latencies) // 2],
        "p99_ms": latencies[min(len(latencies) * 99 // 100, len(latencies) - 1)],
    }), flush=True)


def usage(text):
    sys.exit(f"usage: {text}")
