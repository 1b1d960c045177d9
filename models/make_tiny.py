"""Make `models/tiny`: a Llama with aiXcoder-7B's layout and token ids, small enough for tests and a demo on two cores.

It learns to fill in lines of nineteen modules of Python's standard library, by heart rather than by understanding.
Everything it needs is on the machine. Training ends after `--minutes`, so no two runs give the same weights.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aixcoder_serving.fim.prompt import build
from aixcoder_serving.fim.vocabulary import BOS, END_TURN, EOS, MIDDLE, POST, PRE, Vocabulary

MODULES = [
    *("argparse", "bisect", "collections/__init__", "contextlib", "copy", "fnmatch", "functools", "getopt", "glob"),
    *("heapq", "json/__init__", "json/decoder", "json/encoder", "queue", "sched", "shlex", "statistics", "string"),
    "textwrap",
]
VOCABULARY, POSITIONS = 2048, 32768
SAMPLE_TOKENS, BATCH = 320, 8
UNKNOWN, SENTINELS = "<unk>", [PRE, MIDDLE, POST, END_TURN, "▁<AIX-SYSTEM>", "▁<AIX-USER>"]
LEARNING_RATE, MATRIX_LEARNING_RATE = 3e-3, 0.02


def main() -> None:
    """Train tokenizer and model, write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--minutes", type=float, default=55, help="how long to train (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="processor cores to use (default: %(default)s)")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)

    files = corpus()
    tokenizer = train_tokenizer([text for _, text in files])
    options.out.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        pad_token=EOS,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=SENTINELS,
    ).save_pretrained(options.out)
    model = untrained()
    train(model, samples(Vocabulary.load(options.out), files, random.Random(0)), options.minutes * 60)
    model.to(torch.bfloat16).save_pretrained(options.out)


def corpus() -> list[tuple[str, str]]:
    """Path and code of each module, without docstrings and comments: less to learn, so minutes show."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for module in MODULES:
        tree = ast.parse((root / f"{module}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    node.body = node.body[1:] or [ast.Pass()]
        found.append((f"{module}.py", ast.unparse(tree) + "\n"))
    return found


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """BPE as sentencepiece writes it: a space is ▁, a character without a piece falls apart into byte pieces.

    Ids as in aiXcoder: 0 to 2 unknown, begin, end; 3 to 258 the bytes; 260 to 265 the sentinels.
    """
    spaces = normalizers.Replace(" ", "▁")
    # Words with the white space before them, up to three digits, runs of signs, of line ends, of spaces.
    words = pre_tokenizers.Split(
        Regex(r"▁*[^\S\n]*[\p{L}\p{M}_]+|▁?\p{N}{1,3}|▁?[^\s▁\p{L}\p{N}_]+|\n+|▁+|\s"), behavior="isolated"
    )
    learner = Tokenizer(BPE(unk_token=UNKNOWN))
    learner.normalizer, learner.pre_tokenizer = spaces, words
    named = [UNKNOWN, BOS, EOS, *SENTINELS]
    learner.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=VOCABULARY - 256,
            special_tokens=named,
            initial_alphabet=[*map(chr, range(33, 127)), "▁", "\n", "\t"],
            limit_alphabet=400,
            show_progress=False,
        ),
    )
    learnt = sorted(set(learner.get_vocab()) - set(named), key=learner.get_vocab().__getitem__)
    pieces = [UNKNOWN, BOS, EOS, *(f"<0x{value:02X}>" for value in range(256)), learnt[0], *SENTINELS, *learnt[1:]]
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]  # given away only as JSON
    ids = {piece: n for n, piece in enumerate(pieces)}
    tokenizer = Tokenizer(BPE(vocab=ids, merges=merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = spaces, words
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in named])
    return tokenizer


@dataclass(frozen=True)
class Sample:
    """Token ids, the last `middle` of which are what the model is to write."""

    ids: list[int]
    middle: int


def samples(vocabulary: Vocabulary, files: list[tuple[str, str]], rng: random.Random) -> Iterator[Sample]:
    """Endless prompts as they are served, with their answers; each at most `SAMPLE_TOKENS` long."""
    sizes = [len(text) for _, text in files]
    while True:
        path, text = rng.choices(files, sizes)[0]
        made = _sample(vocabulary, path, text.splitlines(keepends=True), rng)
        if len(made.ids) <= SAMPLE_TOKENS:
            yield made


def _sample(vocabulary: Vocabulary, path: str, lines: list[str], rng: random.Random) -> Sample:
    """One line (two, now and then) out of 8 to 22, from its start, its indentation or a few characters further on."""
    length = rng.randint(8, 22)
    start = rng.randrange(max(1, len(lines) - length))
    lines = lines[start : start + length]
    if rng.random() < 0.1 or len(lines) < 6:
        return Sample([*build(vocabulary, prefix="".join(lines), suffix=None, room=4096).ids, vocabulary.eos], 0)
    at = rng.randrange(2, len(lines) - 1)
    end = min(at + rng.choice([1, 1, 1, 1, 2]), len(lines) - 1)
    indentation = len(lines[at]) - len(lines[at].lstrip())
    column = rng.choice([0, indentation, min(indentation + rng.randrange(12), len(lines[at]) - 1)])
    prompt = build(
        vocabulary,
        prefix="".join(lines[:at]) + lines[at][:column],
        suffix="".join(lines[end:]),
        path=path if rng.random() < 0.6 else None,
        order="psm" if rng.random() < 0.05 else "spm",
        room=4096,
    )
    middle = [*vocabulary.encode(lines[at][column:] + "".join(lines[at + 1 : end])).ids, vocabulary.eos]
    return Sample([*prompt.ids, *middle], len(middle))


def untrained() -> LlamaForCausalLM:
    """AiXcoder's layout at a size that tensor parallel 1, 2, 4 and 8 divide; random weights."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=688,
            num_hidden_layers=5,
            num_attention_heads=16,
            num_key_value_heads=8,
            max_position_embeddings=POSITIONS,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 256000.0},
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.02 if "embed" in name else weight.shape[1] ** -0.5)
        model.lm_head.weight.mul_(0.02)
    return model


def train(model: LlamaForCausalLM, source: Iterator[Sample], seconds: float) -> None:
    """Muon on the layers' matrices, AdamW on the rest; the answer counts four times as much as the prompt."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "layers" in name]
    others = [p for name, p in model.named_parameters() if not (p.dim() == 2 and "layers" in name)]
    optimizers = [
        torch.optim.Muon(matrices, lr=MATRIX_LEARNING_RATE, weight_decay=0.0, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    started, step = time.monotonic(), 0
    model.train()
    while (done := (time.monotonic() - started) / seconds) < 1:
        # Up over 30 steps, level for two fifths of the time, then down to a fiftieth.
        rate = min(1.0, (step + 1) / 30) * min(1.0, max(0.02, (1 - done) / 0.6))
        for optimizer, base in zip(optimizers, (MATRIX_LEARNING_RATE, LEARNING_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = base * rate
        ids, weights = _batch(source)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights.flatten()).sum() / weights.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 20 == 0:
            print(f"{done:4.0%} step {step} loss {loss.item():.3f}", flush=True)
        step += 1
    model.eval()


def _batch(source: Iterator[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (BATCH, length), padded with end pieces, and the weight of predicting each from the second on."""
    drawn = [next(source) for _ in range(BATCH)]
    length = max(len(sample.ids) for sample in drawn)
    ids, weights = torch.full((BATCH, length), 2), torch.zeros(BATCH, length - 1)
    for row, sample in enumerate(drawn):
        n = len(sample.ids)
        ids[row, :n] = torch.tensor(sample.ids)
        weights[row, : n - 1] = 1.0
        weights[row, n - 1 - sample.middle : n - 1] = 4.0 if sample.middle else 1.0
    return ids, weights


if __name__ == "__main__":
    main()
