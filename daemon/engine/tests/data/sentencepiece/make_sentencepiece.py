#!/usr/bin/env python3
"""Makes the tokenizers of this folder, as Marian and T5 models are published without a tokenizer.json, and
expected.json: what transformers makes of texts and tokens with them. The weights are those of ../marian and
../mt5. Usage: make_sentencepiece.py
Pinned: transformers 4.57.1, tokenizers 0.22.2, sentencepiece 0.2.3 (without sacremoses), torch 2.15.0."""
import itertools, json, os, random, shutil, sys, tempfile, unicodedata
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../../scripts/peers"))
import sentencepiece as spm
import torch
import transformers as T
from parity_corpus import TEXTS, TRIPLES

ENGLISH = [t for _, t in TEXTS if t.strip() and len(t) < 1000] * 2 + [s for tr in TRIPLES for s in tr]
# Another language's marks and endings, so that the two models differ.
OTHER = [" ".join(word[::-1] for word in text.split()) for text in ENGLISH]
ROWS = 687          # of ../marian; the last is <pad>
CODES = [">>fra<<", ">>deu<<"]


def rules(path):
    """Some of NFKC's rules, one of two characters, and marks that go: all of them would be 240 KB."""
    characters = [chr(c) for c in itertools.chain(range(0xA0, 0x180), range(0x2000, 0x2070), range(0x2100, 0x2190),
                                                  range(0xFB00, 0xFB07), range(0xFF01, 0xFF5F), [0x3000])]
    lines = {c: unicodedata.normalize("NFKC", c) for c in characters}
    lines.update({"\t": " ", "\n": " ", "\r": " ", "\u200b": " ", "\u00ad": "", "\u0301": "",
                  "e\u0301": "\u00e9", "A\u030a": "\u00c5", "\u30ab\u3099": "\u30ac", "...": "\u2026 "})
    hexes = lambda s: " ".join(f"{ord(c):X}" for c in s)
    with open(path, "w") as f:
        f.writelines(f"{hexes(a)}\t{hexes(b)}\n" for a, b in sorted(lines.items()) if a != b)


def train(prefix, texts, **kw):
    spm.SentencePieceTrainer.train(sentence_iterator=iter([t.replace("\0", "").replace("\n", " ") for t in texts]),
        model_prefix=prefix, model_type="unigram", hard_vocab_limit=False, num_threads=1, minloglevel=2, **kw)
    return prefix + ".model"


def write(path, value):
    with open(path, "w") as f:
        json.dump(value, f, ensure_ascii=False, indent=1); f.write("\n")


def make_marian(work, folder):
    os.makedirs(folder, exist_ok=True)
    rules(f"{work}/rules.tsv")
    source = train(f"{work}/source", ENGLISH, vocab_size=420, character_coverage=0.99, normalization_rule_tsv=f"{work}/rules.tsv",
                   user_defined_symbols=["<user>", "ing "])
    target = train(f"{work}/target", OTHER, vocab_size=420, character_coverage=0.99, normalization_rule_name="identity")
    shutil.copy(source, f"{folder}/source.spm"); shutil.copy(target, f"{folder}/target.spm")
    names = ["</s>", "<unk>"]
    models = [spm.SentencePieceProcessor(model_file=m) for m in (source, target)]
    pieces = [[sp.id_to_piece(i) for i in range(sp.get_piece_size())] for sp in models]
    # Some pieces of the source have no number, as happens in published folders.
    for piece in CODES + pieces[0][3:-12] + pieces[1][3:]:
        if piece not in names and len(names) < ROWS - 1: names.append(piece)
    names += [f"<unused{i}>" for i in range(ROWS - 1 - len(names))] + ["<pad>"]
    write(f"{folder}/vocab.json", {name: i for i, name in enumerate(names)})
    write(f"{folder}/tokenizer_config.json", {"source_lang": "eng", "target_lang": "fra"})


def make_t5(work, folder):
    os.makedirs(folder, exist_ok=True)
    rules(f"{work}/rules.tsv")
    model = train(f"{work}/spiece", ENGLISH, vocab_size=600, character_coverage=0.9995, normalization_rule_tsv=f"{work}/rules.tsv",
                  pad_id=0, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols=["<user>"])
    shutil.copy(model, f"{folder}/spiece.model")
    tokens = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    # As google/mt5-small has it, but for the number of extra tokens.
    write(f"{folder}/tokenizer_config.json", {**tokens, "extra_ids": 100, "additional_special_tokens": None,
                                              "special_tokens_map_file": None, "tokenizer_class": "T5Tokenizer"})
    write(f"{folder}/special_tokens_map.json", tokens)


EXTRA = [">>fra<< Good morning.", ">>xyz<< Good morning.", ">>fra<<", " >>fra<< Good", ">>so <b>it</b> is<< there", ">>open",
         "One</s>two<pad> three <unk>four", "</s>>>deu<<morning", "a<user>b <user> go", "do ing that, going to", "   two   blanks  ",
         "wait...... what", "e\u0301te\u0301 A\u030a \u30ab\u3099 x\u0301", "\u200b\u00ad", "\u00ad a\u00adb", "\ufb01n \uff21\uff22",
         "\u2581a\u2581\u2581b", "<extra_id_0> is <extra_id_99>.", "<s>x</s>", "tab\there\nand\r\nthere", "\u0e01\u0e33 \u6f22\u5b57\u4eee\u540d", "\x1c a \x1f"]
# T5 folders say it in many ways; each is read by the same texts.
T5_VARIANTS = {
    "as published": ({}, {}),
    "no extra tokens": ({"extra_ids": 0}, {}),
    "named in both files": ({"extra_ids": 3, "additional_special_tokens": [f"<extra_id_{i}>" for i in range(3)]},
                            {"additional_special_tokens": [f"<extra_id_{i}>" for i in range(3)]}),
    "a token more": ({"extra_ids": 2, "additional_special_tokens": ["morning"]}, {}),
    "a token with blanks": ({"extra_ids": 2}, {"pad_token": {"content": "<pad>", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False},
                             "additional_special_tokens": [{"content": "<mid>", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False}]}),
    "the first word alone": ({"legacy": False}, {}),
    "no blank in front": ({"add_prefix_space": False}, {}),
    "tokens by number": ({"extra_ids": 1, "additional_special_tokens": ["<extra_id_0>"], "added_tokens_decoder": {
        "0": {"content": "<pad>", "special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False},
        "1": {"content": "</s>", "special": True, "lstrip": False, "rstrip": True, "normalized": False, "single_word": False},
        "601": {"content": "Good", "special": False, "lstrip": False, "rstrip": False, "normalized": True, "single_word": True}}}, {}),
}


def answers(tokenizer, texts, rows, seed):
    chance = random.Random(seed)
    ids = [tokenizer(text, truncation=False).input_ids for text in texts]
    drawn = [[chance.randrange(rows) for _ in range(chance.randrange(1, 12))] for _ in range(40)]
    text = lambda row: tokenizer.decode(row, skip_special_tokens=True)
    return {"read": [{"ids": row, "text": text(row)} for row in ids], "drawn": [{"ids": row, "text": text(row)} for row in drawn]}


def generate(model, tokenizer, texts):
    """Greedy answers, and how sure the least sure of their tokens is."""
    rows = []
    for text in texts:
        out = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=12, num_beams=1, do_sample=False,
                             output_logits=True, return_dict_in_generate=True)
        best = [torch.topk(row[0], 2).values for row in out.logits]
        rows.append({"text": text, "ids": out.sequences[0].tolist()[1:], "margin": min(float(a - b) for a, b in best),
                     "answer": tokenizer.decode(out.sequences[0], skip_special_tokens=True)})
    return rows


def main():
    texts = [row["text"] for row in json.load(open(os.path.join(HERE, "../texts.json")))] + EXTRA
    with tempfile.TemporaryDirectory() as work:
        make_marian(work, f"{HERE}/marian")
        make_t5(work, f"{HERE}/t5")
        marian = T.MarianTokenizer.from_pretrained(f"{HERE}/marian")
        expected = {"versions": {"torch": torch.__version__.split("+")[0], "transformers": T.__version__, "sentencepiece": spm.__version__}, "extra_texts": EXTRA,
                    "marian": answers(marian, texts, ROWS, 1), "t5": {}}
        for name, (config, special) in T5_VARIANTS.items():
            folder = shutil.copytree(f"{HERE}/t5", f"{work}/{len(expected['t5'])}")
            merged = {}
            for file, change in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
                merged[file] = {**json.load(open(f"{folder}/{file}")), **change}
                write(f"{folder}/{file}", merged[file])
            t5 = T.T5TokenizerFast.from_pretrained(folder)
            if len(sys.argv) > 1: t5.backend_tokenizer.save(f"{sys.argv[1]}/{len(expected['t5'])}.json")
            rows = texts if not config and not special else EXTRA
            expected["t5"][name] = {"files": {"tokenizer_config.json": config, "special_tokens_map.json": special},
                                    **answers(t5, rows, len(t5), 2)}
        for kind, weights, tokenizer, model in (("marian", "marian", marian, T.MarianMTModel),
                                                ("t5", "mt5", T.T5TokenizerFast.from_pretrained(f"{HERE}/t5"), T.MT5ForConditionalGeneration)):
            model = model.from_pretrained(os.path.join(HERE, "..", weights)).eval()
            expected.setdefault("generated", {})[kind] = generate(model, tokenizer, [t for t in texts if 0 < len(tokenizer(t).input_ids) < 60][1:9])
    with open(f"{HERE}/expected.json", "w") as f:
        json.dump(expected, f, ensure_ascii=True, separators=(",", ":")); f.write("\n")


main()
