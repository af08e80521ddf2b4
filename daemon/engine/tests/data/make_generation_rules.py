#!/usr/bin/env python3
"""What transformers answers where a folder's generation_config.json has rules that no request speaks of. Usage:
  make_generation_rules.py DATA_FOLDER OUT.json
Pinned: transformers 5.23.0. The inputs' tokens are those of expected/NAME.json. Each answer stands with the margin by
which it was decided (scripts/peers/parity_peer.py)."""
import json, os, sys
from pathlib import Path
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
import torch
import transformers
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts" / "peers"))
from parity_peer import Margin, ended
torch.set_num_threads(1)

MODELS = ["t5-relu-tied", "flan-t5-gated-untied", "mt5", "bart", "marian"]
TEXTS = (1, 5, 14, 20)
NEW = 12


def generate(model, ids, beams, **options):
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    inputs = dict(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
    margin = Margin(beams, ends)
    with torch.no_grad():
        made = model.generate(
            **inputs, do_sample=False, num_beams=beams, num_return_sequences=beams, max_new_tokens=NEW,
            return_dict_in_generate=True, output_scores=True, logits_processor=[margin] if beams > 1 else [], **options)
    if beams > 1:
        scores = made.sequences_scores.tolist()[:2]
        smallest = min(margin.smallest, scores[0] - scores[1])
    else:
        best = [step[0].topk(2).values for step in made.scores]
        smallest = min((first - second).item() for first, second in best)
    return {"ids": ended(made.sequences[0].tolist()[1:], ends), "margin": min(smallest, 1e9)}


def rules(plain, forced, eos):
    """Such as change what is made of the first text."""
    own = [token for token in plain if token not in (*forced, eos)]
    a, b, c, d = (own * 4)[:4]
    return {
        "bad_words": {"bad_words_ids": [[b, c], [d], [eos], [a, b, c, d]]},
        "sequence_bias": {"sequence_bias": [[[a], -3.0], [[b, c], -2.5], [[c], 1.5]]},
        "suppress": {"suppress_tokens": [b], "begin_suppress_tokens": [a]},
        "encoder_penalty": {"encoder_repetition_penalty": 1.5, "repetition_penalty": 1.2},
        "encoder_ngrams": {"encoder_no_repeat_ngram_size": 2},
        "encoder_tokens": {"encoder_no_repeat_ngram_size": 1},
        "length_decay": {"exponential_decay_length_penalty": [2, 1.6]},
        "renormalize": {"renormalize_logits": True, "no_repeat_ngram_size": 1, "suppress_tokens": [a, c]},
        "forced": {"forced_bos_token_id": d, "begin_suppress_tokens": [a, b], "forced_eos_token_id": eos},
    }


def main(data, out):
    models = {}
    for name in MODELS:
        recorded = json.load(open(f"{data}/expected/{name}.json"))["rows"]
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(f"{data}/{name}", dtype=torch.float32).eval()
        own, models[name] = model.generation_config.to_dict(), []
        plain = generate(model, recorded[TEXTS[0]]["input_ids"], 1)["ids"]
        forced = [own["forced_bos_token_id"]] if own.get("forced_bos_token_id") is not None else []
        for rule, said in rules(plain, forced, model.generation_config.eos_token_id).items():
            model.generation_config = transformers.GenerationConfig(**{**own, **said})
            rows = [{"text": text, "greedy": generate(model, recorded[text]["input_ids"], 1),
                     "beam3": generate(model, recorded[text]["input_ids"], 3)} for text in TEXTS]
            models[name].append({"rule": rule, "said": said, "rows": rows})
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    with open(out, "w") as file:
        json.dump({"versions": versions, "max_new_tokens": NEW, "models": models}, file, separators=(",", ":"))


if __name__ == "__main__":
    main(*sys.argv[1:])
