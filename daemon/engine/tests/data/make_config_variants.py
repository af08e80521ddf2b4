#!/usr/bin/env python3
"""What sentence-transformers answers for the tiny models where their files say something else. Usage:
  make_config_variants.py DATA_FOLDER OUT.json
Pinned: transformers 5.23.0, sentence-transformers 6.2.0. Rows and scores of a few texts stand beside the changes that
were made to the files (null takes a key out), so that a test can make the same ones."""
import json, os, shutil, sys, tempfile
from pathlib import Path
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
import sentence_transformers
import torch
import transformers
from tokenizers import Tokenizer
torch.set_num_threads(1)

TEXTS = ["the cat sat", "Café naïve façade, coöperate!", "one two three four five six seven eight nine ten " * 6, "?"]
PAIRS = [["what is a cat?", "the dog"], ["a", "b c"], ["The soup is warm.", "one two three " * 40]]
CONFIG, SENTENCE, TOKENIZER = "config.json", "sentence_bert_config.json", "tokenizer_config.json"
MEAN = {"pooling_mode_lasttoken": False, "pooling_mode_mean_tokens": True}
ST6 = {"modules.json": [{"idx": 0, "name": "0", "path": "",
                         "type": "sentence_transformers.base.modules.transformer.Transformer"}],
       SENTENCE: {"transformer_task": "sequence-classification", "module_output_name": "scores",
                  "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}}}}

# Has no modules: its encoder's rows are mean-pooled.
GATED_T5 = "flan-t5-gated-untied"

VARIANTS = [
    ("qwen3-last", {CONFIG: {"is_causal": False}, "1_Pooling/config.json": MEAN}),
    ("qwen3-last", {CONFIG: {"rope_theta": 100, "rope_parameters": {"rope_type": "default", "rope_theta": 5000}}}),
    ("qwen3-last", {CONFIG: {"rope_scaling": {"type": "default"}, "hidden_act": None}}),
    ("qwen3-last", {CONFIG: {"max_position_embeddings": 32}, SENTENCE: {"max_seq_length": 100}}),
    ("modernbert-cls", {CONFIG: {"local_rope_theta": None, "hidden_activation": None}}),
    ("modernbert-cls", {CONFIG: {"max_position_embeddings": 32}, SENTENCE: {"max_seq_length": 100}}),
    ("gemma3-mean-dense2", {CONFIG: {"layer_types": None, "sliding_window_pattern": 2}}),
    ("gemma3-mean-dense2", {CONFIG: {"layer_types": None, "hidden_activation": None}}),
    ("bert-mean-norm", {CONFIG: {"hidden_act": None}, SENTENCE: {"tokenizer_args": {"model_max_length": 9}}}),
    ("distilbert-mean", {CONFIG: {"activation": None}}),
    ("mpnet-mean-norm", {CONFIG: {"hidden_act": None}, TOKENIZER: {"truncation_side": "left"}}),
    ("sentence-t5", {TOKENIZER: {"truncation_side": "left"}, SENTENCE: {"max_seq_length": 20}}),
    ("sentence-t5", {CONFIG: {"feed_forward_proj": "relu", "dense_act_fn": None, "is_gated_act": None}}),
    ("sentence-t5", {CONFIG: {"feed_forward_proj": "relu", "dense_act_fn": "gelu_new", "is_gated_act": False}}),
    ("sentence-t5", {CONFIG: {"feed_forward_proj": "gated-gelu", "dense_act_fn": "silu", "is_gated_act": False}}),
    (GATED_T5, {CONFIG: {"feed_forward_proj": None, "dense_act_fn": "gelu_new", "is_gated_act": True}}),
    (GATED_T5, {CONFIG: {"feed_forward_proj": "relu", "dense_act_fn": "silu", "is_gated_act": True}}),
    (GATED_T5, {CONFIG: {"feed_forward_proj": "gated-silu", "dense_act_fn": None, "is_gated_act": None}}),
    (GATED_T5, {CONFIG: {"feed_forward_proj": "gated-gelu", "dense_act_fn": None, "is_gated_act": None}}),
    ("cross-encoder", {TOKENIZER: {"model_input_names": ["input_ids", "attention_mask"]}}),
    ("cross-encoder", {TOKENIZER: {"truncation_side": "left"}}),
    ("cross-encoder", {**ST6, "config_sentence_transformers.json": {
        "model_type": "CrossEncoder", "prompts": {"query": "find: "}, "default_prompt_name": "query",
        "activation_fn": "torch.nn.modules.linear.Identity"}}),
]


def change(folder, changes):
    for name, said in changes.items():
        path = folder / name
        if isinstance(said, list):
            path.write_text(json.dumps(said))
            continue
        json_of = json.loads(path.read_text()) if path.exists() else {}
        for key, value in said.items():
            json_of.pop(key, None)
            if value is not None:
                json_of[key] = value
        path.write_text(json.dumps(json_of))


def main(data, out):
    variants = []
    for name, changes in VARIANTS:
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work) / name
            shutil.copytree(Path(data) / name, folder)
            change(folder, changes)
            if name == "cross-encoder":
                model = sentence_transformers.CrossEncoder(str(folder), device="cpu")
                rows = [[score] for score in model.predict(PAIRS, batch_size=1).tolist()]
            else:
                model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
                model.tokenizer._tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
                rows = model.encode([text.strip() for text in TEXTS], batch_size=1).tolist()
        rows = [[round(value, 7) for value in row] for row in rows]
        variants.append({"model": name, "changes": changes, "rows": rows})
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
                "sentence_transformers": sentence_transformers.__version__}
    with open(out, "w") as file:
        json.dump({"versions": versions, "texts": TEXTS, "pairs": PAIRS, "variants": variants}, file, separators=(",", ":"))


if __name__ == "__main__":
    main(*sys.argv[1:])
