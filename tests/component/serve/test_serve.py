"""`aixcoder serve` as a person starts it: a process, its output, a client, signals."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from tests.component.processes import ranks, until_engine, until_gone

TINY = Path(__file__).parents[3] / "models" / "tiny"
PREFIX = (
    "class PriorityQueue(Queue):\n\n    def _init(self, maxsize):\n        self.queue = []\n\n    def _qsize(self):\n"
)
STOPS = [1, 2, 260, 261, 262, 263]


def _start(*arguments: str, model: Path = TINY, device: str = "cpu") -> subprocess.Popen[str]:
    options = ["--model", str(model), "--port", "0", "--device", device, *arguments]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "aixcoder_serving.cli", "serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _url(process: subprocess.Popen[str]) -> str:
    """Where it listens, from its first line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "/readyz" in line, line
    return line.split("; ")[1].split("/readyz")[0]


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """URL of a ready server, ended by SIGTERM."""
    process = _start("--dtype", "float32", "--served-name", "small", "--max-concurrent-sequences", "2")
    started = time.monotonic()
    url = _url(process)
    assert process.stdout is not None
    assert f"small is ready: {url}/v1/completions" in process.stdout.readline()
    print(f"ready after {time.monotonic() - started:.1f} s")
    yield url
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/healthz")


@pytest.fixture(scope="module")
def client(served: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0) as made:
        yield made


def _suffixes() -> list[str]:
    return [f"\n    def {name}(self, item):\n        pass\n" for name in ("_put", "_get", "put", "get", "join", "full")]


def _expected(suffix: str) -> str:
    """Transformers' greedy text for the prompt as one string, which its own tokenizer encodes."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    model = LlamaForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    text = f"<s>▁<AIX-SPAN-PRE>▁<AIX-SPAN-POST>{suffix}▁<AIX-SPAN-MIDDLE>{PREFIX}"
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, eos_token_id=STOPS
    )
    decoded: str = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return decoded


def test_completions_are_transformers_own_streamed_and_not(client: openai.OpenAI) -> None:
    suffixes = _suffixes()
    expected = [_expected(suffix) for suffix in suffixes]

    def whole(suffix: str) -> str:
        answer = client.completions.create(
            model="small", prompt=PREFIX, suffix=suffix, max_tokens=20, temperature=0, timeout=120
        )
        return answer.choices[0].text

    def streamed(suffix: str) -> str:
        chunks = client.completions.create(
            model="small", prompt=PREFIX, suffix=suffix, max_tokens=20, temperature=0, stream=True, timeout=120
        )
        return "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(whole, suffixes)) == expected
        assert list(pool.map(streamed, suffixes)) == expected
    assert any("return" in text for text in expected)


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["small"]


def test_a_refusal_reaches_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="99999"):
        client.completions.create(model="small", prompt=[1, 99999], max_tokens=5)


def test_any_model_name_is_answered(served: str) -> None:
    body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
    with urllib.request.urlopen(
        urllib.request.Request(f"{served}/v1/completions", body, {"content-type": "application/json"})
    ) as answer:
        assert json.loads(answer.read())["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("begun", [False, True], ids=["at once", "in the engine's process"])
async def test_a_signal_while_loading_ends_it(number: signal.Signals, begun: bool) -> None:
    process = _start()
    _url(process)
    engines = [await until_engine(process.pid)] if begun else []
    started = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    took = time.monotonic() - started
    print(f"ended after {took:.1f} s")
    assert (process.returncode, err) == (0, "")
    assert took < 4, "an engine that loads is not waited for"
    await until_gone(engines)


async def test_the_engines_options_and_its_loss() -> None:
    options = ["--threads", "2", "--cache-tokens", "4096", "--step-budget-ms", "20", "--no-prefix-cache", "--no-drafts"]
    process = _start("--dtype", "float32", "--max-model-length", "512", *options)
    url = _url(process)
    assert process.stdout is not None
    assert "is ready" in process.stdout.readline()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        for _ in range(2):
            answer = client.completions.create(
                model="x", prompt=PREFIX, suffix=_suffixes()[0], max_tokens=20, temperature=0
            )
            assert answer.choices[0].text == _expected(_suffixes()[0])
            assert answer.usage is not None
            assert answer.usage.prompt_tokens_details is not None
            assert answer.usage.prompt_tokens_details.cached_tokens == 0
    engine = await until_engine(process.pid)
    # Ray, as this test, sets it to 1 for the process in front.
    assert b"\0OMP_NUM_THREADS=2\0" in b"\0" + await asyncio.to_thread(Path(f"/proc/{engine}/environ").read_bytes)
    os.kill(engine, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "aixcoder: EngineFailed: the engine's process ended (signal 9)"


@pytest.mark.parametrize("ready", [False, True], ids=["loading", "ready"])
async def test_killed_it_leaves_no_engine_behind(ready: bool) -> None:
    process = _start("--dtype", "float32", "--tensor-parallel-size", "2", "--max-model-length", "512")
    _url(process)
    assert process.stdout is not None
    if ready:
        process.stdout.readline()
    left = ranks(await until_engine(process.pid))
    assert len(left) == (2 if ready else 1)
    process.kill()
    started = time.monotonic()
    await until_gone(left)
    print(f"its engine ended {time.monotonic() - started:.1f} s later")
    process.communicate(timeout=30)


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = _start("--port", str(port))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith(f"aixcoder: can not listen on 127.0.0.1:{port}: ")
    assert "in use" in err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("folder", "is not a folder"),
        ("weights", "ModelInvalid: "),
        pytest.param(
            "cuda",
            "DeviceNotFound: 1 CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here"),
        ),
    ],
)
def test_what_can_not_be_served_is_told(tmp_path: Path, spoil: str, message: str) -> None:
    model = shutil.copytree(TINY, tmp_path / "model")
    match spoil:
        case "folder":
            shutil.rmtree(model)
        case "weights":
            (model / "model.safetensors").write_bytes(b"nothing")
    process = _start(model=model, device="cuda" if spoil == "cuda" else "cpu")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    last = err.splitlines()[-1]
    assert last.startswith("aixcoder: ")
    assert message in last


def test_the_log_says_what_computes() -> None:
    process = _start("--dtype", "float32", "--max-model-length", "512", "--log-level", "info")
    _url(process)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert re.search(r"INFO aixcoder_serving\.engine\.loading: operations by (libaix_\w+\.so|torch)\n", err), err


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aixcoder_serving.cli", "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("aixcoder ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["serve"], "required: --model"),
        (["serve", "--model", "x", "--port", "70000"], "70000 is not in 0..65535"),
        (["serve", "--model", "x", "--max-model-length", "3"], "3 is less than 16"),
        (["serve", "--model", "x", "--dtype", "int4"], "invalid choice: 'int4'"),
        (["serve", "--model", "x", "--threads", "0"], "0 is less than 1"),
        (["serve", "--model", "x", "--step-budget-ms", "nan"], "nan is not more than 0 milliseconds"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aixcoder_serving.cli", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
