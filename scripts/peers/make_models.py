"""Makes models for `scripts/bench generation`, `memory` and `parity`: real shapes and seeded random
weights, so that nothing has to be fetched.

usage: make_models.py t5 OUT            flan-t5-small's shape, and a tokenizer with one token for each word
       make_models.py grow TINY OUT     the architecture of a tiny model, at about 150 MB
       make_models.py vocabulary TINY OUT   XLM-R with multilingual-e5-small's shape and 250,000 words in its tokenizer
       make_models.py narrow MODEL OUT  a model with its weights as bf16
       make_models.py nomic TINY OUT    a small Nomic-BERT with the tokenizer and pooling of a tiny model
"""

import json
import random
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

# The names that architectures use for their sizes.
SIZES = {
    "hidden_size": 512, "dim": 512, "d_model": 512,
    "intermediate_size": 2048, "hidden_dim": 2048, "d_ff": 2048, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048,
    "num_attention_heads": 8, "n_heads": 8, "num_heads": 8,
    "encoder_attention_heads": 8, "decoder_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "d_kv": 64,
    "num_hidden_layers": 12, "n_layers": 12, "num_layers": 6, "num_decoder_layers": 6,
    "encoder_layers": 6, "decoder_layers": 6,
}


def save(model, out):
    """In f32, as one file, without the library's initialisation with small numbers. The values do not
    matter, but must be finite and not all the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.05, generator=generator)
    model.save_pretrained(out, max_shard_size="20GB")


def t5(out):
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_decoder_layers=8, num_heads=6,
        relative_attention_num_buckets=32, relative_attention_max_distance=128, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    save(transformers.T5ForConditionalGeneration(config), out)
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{number}": number for number in range(3, 32100)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512,
    ).save_pretrained(out)


def grow(tiny, out):
    torch.manual_seed(0)
    config = json.loads((tiny / "config.json").read_text())
    for key, value in SIZES.items():
        if isinstance(config.get(key), int):
            config[key] = value
    if config.get("query_pre_attn_scalar"):
        config["query_pre_attn_scalar"] = config["head_dim"]
    if "layer_types" in config:
        kinds = config["layer_types"]
        config["layer_types"] = [kinds[at % len(kinds)] for at in range(config["num_hidden_layers"])]
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config))
    loaded = transformers.AutoConfig.from_pretrained(out)
    save(getattr(transformers, config["architectures"][0])._from_config(loaded), out)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
                 "sentence_bert_config.json"):
        if (tiny / name).is_file():
            shutil.copyfile(tiny / name, out / name)
    if (tiny / "modules.json").is_file():
        width = config.get("hidden_size") or config.get("dim") or config.get("d_model")
        kind = "sentence_transformers.models"
        (out / "modules.json").write_text(json.dumps([
            {"idx": 0, "name": "0", "path": "", "type": f"{kind}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}.Pooling"}]))
        (out / "1_Pooling").mkdir(exist_ok=True)
        (out / "1_Pooling" / "config.json").write_text(json.dumps(
            {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}))


def vocabulary(tiny, out):
    config = json.loads((tiny / "config.json").read_text())
    config |= {"vocab_size": 250_037, "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12,
               "num_attention_heads": 12, "max_position_embeddings": 514}
    shutil.copytree(tiny, out, dirs_exist_ok=True)
    (out / "config.json").write_text(json.dumps(config))
    loaded = transformers.AutoConfig.from_pretrained(out)
    save(transformers.XLMRobertaModel._from_config(loaded), out)
    (out / "1_Pooling" / "config.json").write_text(json.dumps(
        {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True}))
    # Words that share prefixes, as in natural languages.
    random_numbers = random.Random(0)
    parts = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"] + list("nstrl")
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    words = dict(tokenizer["model"]["vocab"])
    while len(words) < 250_000:
        word = "".join(random_numbers.choice(parts) for _ in range(random_numbers.randint(1, 5)))
        words.setdefault(("\u2581" if len(words) % 2 else "") + word, -8.0 - random_numbers.random() * 6)
    tokenizer["model"]["vocab"] = list(map(list, words.items()))
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")))


def narrow(model, out):
    shutil.copytree(model, out, dirs_exist_ok=True)
    weights = load_file(out / "model.safetensors")
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}, out / "model.safetensors")


def nomic(tiny, out):
    torch.manual_seed(0)
    vocabulary = json.loads((tiny / "config.json").read_text())["vocab_size"]
    config = transformers.NomicBertConfig(
        vocab_size=vocabulary, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64)
    model = transformers.NomicBertModel(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A large spread: with small weights attention is uniform, which hides errors.
            wide = 1.6 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.2
            parameter.normal_(float("norm" in name and name.endswith("weight")), wide, generator=generator)
    shutil.copytree(tiny, out, dirs_exist_ok=True)
    model.save_pretrained(out)


def main():
    match sys.argv[1:]:
        case ["t5", out]:
            t5(Path(out))
        case ["grow", tiny, out]:
            grow(Path(tiny), Path(out))
        case ["vocabulary", tiny, out]:
            vocabulary(Path(tiny), Path(out))
        case ["narrow", model, out]:
            narrow(Path(model), Path(out))
        case ["nomic", tiny, out]:
            nomic(Path(tiny), Path(out))
        case _:
            sys.exit(__doc__)


main()
