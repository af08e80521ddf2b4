#!/usr/bin/env python3
"""What transformers answers in more modes of beam search than make_reference.py records: how beams end, how many
are returned, and what the rules do among them. Usage:
  make_generation_modes.py DATA_FOLDER OUT.json
Pinned: transformers 4.57.1, tokenizers 0.22.2. The inputs' tokens are those of expected/NAME.json; some of its
answers are made again first, to see that this installation computes what was recorded."""
import json, os, sys
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
import torch
import transformers
torch.set_num_threads(1)

MODELS = ["t5-relu-tied", "flan-t5-gated-untied", "mt5", "bart", "marian"]
TEXTS = (0, 1, 2, 5, 8, 14, 20)
NEW = 12
MODES = {
    "beam5_never": dict(num_beams=5, early_stopping="never", length_penalty=1.5),
    "beam3_short": dict(num_beams=3, length_penalty=-1.0),
    "beam4_flat_early": dict(num_beams=4, length_penalty=0.0, early_stopping=True),
    "beam4_all": dict(num_beams=4, num_return_sequences=4),
    "beam6_rules": dict(num_beams=6, num_return_sequences=2, no_repeat_ngram_size=2, repetition_penalty=1.3, min_new_tokens=5),
    "beam2_never_short": dict(num_beams=2, early_stopping="never", length_penalty=-0.5, num_return_sequences=2),
    "greedy_rules": dict(no_repeat_ngram_size=3, repetition_penalty=1.2, min_new_tokens=4),
}


def generate(model, ids, **options):
    inputs = dict(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
    with torch.no_grad():
        return model.generate(**inputs, do_sample=False, return_dict_in_generate=True, output_scores=True, **options)


def answers(made, eos):
    """The tokens without the one they start from, and without what fills shorter ones up."""
    rows = [row[1:] for row in made.sequences.tolist()]
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


def main(data, out):
    models = {}
    for name in MODELS:
        recorded = json.load(open(f"{data}/expected/{name}.json"))["rows"]
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(f"{data}/{name}", dtype=torch.float32).eval()
        models[name] = []
        for text in TEXTS:
            ids, row = recorded[text]["input_ids"], {"text": text, "modes": {}}
            again = generate(model, ids, max_new_tokens=20, num_beams=4).sequences[0].tolist()
            assert again == recorded[text]["beam4"]["ids"], (name, text)
            for mode, options in MODES.items():
                made = generate(model, ids, max_new_tokens=NEW, **options)
                row["modes"][mode] = {"ids": answers(made, model.generation_config.eos_token_id)}
                if "num_beams" in options:
                    row["modes"][mode]["scores"] = [round(score, 6) for score in made.sequences_scores.tolist()]
            models[name].append(row)
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    made = {"versions": versions, "max_new_tokens": NEW, "modes": MODES, "models": models}
    with open(out, "w") as file:
        json.dump(made, file, separators=(",", ":"))


if __name__ == "__main__":
    main(*sys.argv[1:])
