"""sentence-transformers and transformers on the CPU, with the jobs that `bench_client answers` sends the daemon.

usage: parity_peer.py JOBS.json ANSWERS.json

Each job is {"folder", "task", "texts" or "pairs", "options"}; each answer has the form of the daemon's,
and for generated text also the margin by which the library decided. Every text is computed alone, in f32.

Two things follow a folder's tokenizer.json and sentence-transformers up to version 5, not the newer
libraries: transformers 5 rebuilds some tokenizers from their class (T5, XLM-RoBERTa) and then splits
some texts differently; sentence-transformers 6 keeps the whitespace around a text.
"""

import gc
import json
import sys

import numpy
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.util import quantization
from tokenizers import Tokenizer


def by_file(tokenizer, folder):
    """Makes the tokenizer split texts as its file says."""
    tokenizer._tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    return tokenizer


def load(kind, folder):
    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    return by_file(transformers.AutoTokenizer.from_pretrained(folder), folder), model


def embed(folder, job):
    model = SentenceTransformer(folder, device="cpu")
    if isinstance(model.tokenizer, transformers.PreTrainedTokenizerBase):
        by_file(model.tokenizer, folder)
    options = job["options"]
    prompt = model.prompts[options["prompt"]] if "prompt" in options else ""
    rows = []
    for text in job["texts"]:
        whole = (prompt + text).strip()
        rows.append(model.encode(whole[len(prompt) :], prompt=whole[: len(prompt)], show_progress_bar=False))
    rows = numpy.stack(rows)
    # A static table has no row for a text without tokens: there is nothing to average.
    rows = numpy.nan_to_num(rows.astype(numpy.float32))
    if options.get("element") == "int8":
        rows = quantization.quantize_embeddings(rows, precision="int8")
    return {"rows": rows.tolist()}


def rerank(folder, job):
    model = CrossEncoder(folder, device="cpu")
    scores = numpy.asarray(model.predict(job["pairs"], batch_size=1, show_progress_bar=False))
    return {"rows": scores.reshape(len(job["pairs"]), -1).tolist()}


def fill_mask(folder, job):
    tokenizer, model = load("AutoModelForMaskedLM", folder)
    texts = []
    for text in job["texts"]:
        inputs = tokenizer(text, return_tensors="pt", truncation=True)
        with torch.inference_mode():
            logits = model(**inputs).logits[0]
        masks = []
        for position in (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero().flatten().tolist():
            best = logits[position].softmax(-1).topk(job["options"]["top_k"])
            masks.append([{"id": id, "score": score} for score, id in zip(best.values.tolist(), best.indices.tolist())])
        texts.append(masks)
    return {"texts": texts}


class Margin(transformers.LogitsProcessor):
    """Changes nothing, and records the margin of each step of a beam search: of which `beams` partial
    texts continue, and of whether one that ends there is among the best."""

    def __init__(self, beams, ends):
        self.beams, self.ends, self.smallest, self.scores, self.last = beams, ends, float("inf"), {}, {}

    def __call__(self, ids, scores):
        rows = {}
        for row, step in zip(ids.tolist(), scores.tolist()):
            rows.setdefault(tuple(row), step)
        totals = {row: self.total(row) for row in rows}
        every = sorted(((totals[row] + score, token in self.ends) for row, step in rows.items()
                        for token, score in enumerate(step) if score > -1e8), reverse=True)
        going_on = [score for score, ends in every if not ends]
        beams = self.beams
        if len(going_on) > beams:
            self.smallest = min(self.smallest, going_on[beams - 1] - going_on[beams])
        if len(every) > beams and every[beams - 1][1] != every[beams][1]:
            self.smallest = min(self.smallest, every[beams - 1][0] - every[beams][0])
        self.scores, self.last = totals, rows
        return scores

    def total(self, row):
        before = row[:-1]
        return self.scores[before] + self.last[before][row[-1]] if before in self.last else 0.0


def generate(folder, job):
    tokenizer, model = load("AutoModelForSeq2SeqLM", folder)
    options = dict(job["options"])
    beams, returned = options.get("num_beams", 1), options.pop("num_return_sequences", 1)
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    texts = []
    for text in job["texts"]:
        inputs = tokenizer(text, return_tensors="pt", truncation=True)
        inputs.pop("token_type_ids", None)
        margin = Margin(beams, ends)
        with torch.inference_mode():
            # All beams: the distance between the last returned beam and the next one is a margin, too.
            made = model.generate(
                **inputs, **options, do_sample=False, num_return_sequences=beams, return_dict_in_generate=True,
                output_scores=True, logits_processor=[margin] if beams > 1 else [])
        if beams > 1:
            scores = made.sequences_scores.tolist()[: returned + 1]
            gaps = [one - other for one, other in zip(scores, scores[1:])]
            smallest = min([margin.smallest, *gaps])
        else:
            best = [step[0].topk(2).values for step in made.scores]
            smallest = min((first - second).item() for first, second in best)
        texts.append({"ids": [ended(row[1:], ends) for row in made.sequences.tolist()[:returned]], "margin": smallest})
    return {"texts": texts}


def ended(ids, ends):
    """Without the padding of shorter sequences."""
    first = next((at for at, id in enumerate(ids) if id in ends), len(ids))
    return ids[: first + 1]


TASKS = {"embed": embed, "rerank": rerank, "fill_mask": fill_mask, "generate": generate}


def main(jobs, answers):
    with open(jobs, encoding="utf-8") as file:
        jobs = json.load(file)
    made = []
    for job in jobs:
        made.append(TASKS[job["task"]](job["folder"], job))
        gc.collect()
    with open(answers, "w", encoding="utf-8") as file:
        json.dump(made, file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
