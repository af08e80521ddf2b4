"""ONNX Runtime on the CPU, f32, the fused graph of export_onnx.py, batches of 32 sorted by length.

usage: onnxruntime_peer.py MODEL MODEL.onnx CORPUS.jsonl SAMPLES [THREADS]
"""

import json
import os
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from measure import BATCH, measure


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    folder, graph, corpus, samples = sys.argv[1:5]
    threads = int(sys.argv[5]) if len(sys.argv) > 5 else os.cpu_count()

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    with open(f"{folder}/sentence_bert_config.json", encoding="utf-8") as file:
        tokenizer.enable_truncation(json.load(file)["max_seq_length"])

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    width = session.get_outputs()[0].shape[-1]

    def forward(batch):
        shape = (len(batch), max(map(len, batch)))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, sequence in enumerate(batch):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    def tokenize(texts):
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]

    def embed(texts):
        ids = tokenize(texts)
        order = sorted(range(len(ids)), key=lambda text: -len(ids[text]))
        rows = np.empty((len(ids), width if isinstance(width, int) else 384), np.float32)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            rows[chosen] = forward([ids[text] for text in chosen])
        return rows

    measure("onnxruntime", corpus, int(samples), embed, lambda texts: sum(map(len, tokenize(texts))))


main()
