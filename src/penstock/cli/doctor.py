"""`penstock doctor`: what this machine is, and whether Penstock works on it."""

import importlib.metadata
import platform
import time

import typer
from rich.console import Console
from rich.table import Table

from penstock.engine.host import cpu_flags, cpu_name, free_memory, num_cores
from penstock.vocabulary.sampling_params import SamplingParams

_GIB = 2**30
_INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
}
_PARTS = {
    "torch": "needed",
    "tokenizers": "needed",
    "transformers": "optional: only tests compare against it",
    "triton": "optional: kernels for GPUs",
    "flashinfer-python": "optional: attention on GPUs",
    "ray": "optional: several machines",
}
_PROMPT = "def add(a, b):\n    return a +"


def doctor() -> None:
    """Say what machine this is, what is installed, and whether the embedded model answers.

    The exit status is 0 if all that is needed works.
    """
    console = Console(highlight=False)
    console.print(_machine())
    console.print(_parts())
    try:
        answer = _answer()
    except Exception as error:  # whatever it is, the person asking is to hear of it
        console.print(f"[bold red]The embedded model does not answer:[/] {error}")
        raise typer.Exit(1) from error
    console.print(answer)


def _machine() -> Table:
    import torch  # here and below, so that other commands need not wait for it

    table = _table("Machine")
    flags = cpu_flags()
    sets = [name for flag, name in _INSTRUCTION_SETS.items() if flag in flags]
    table.add_row("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    table.add_row("python", platform.python_version())
    table.add_row("processor", f"{cpu_name()}, {num_cores()} cores for this process")
    table.add_row("instruction sets", ", ".join(sets) or "none of those that matter here")
    table.add_row("free memory", f"{free_memory() / _GIB:.1f} GiB")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        table.add_row(f"cuda:{index}", f"{name}, {free / _GIB:.1f} of {total / _GIB:.1f} GiB free")
    if not torch.cuda.is_available():
        table.add_row("GPU", "none that torch can use")
    return table


def _parts() -> Table:
    table = _table("Parts")
    for name, why in _PARTS.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        table.add_row(name, f"{version}  [dim]{why}[/]")
    return table


def _answer() -> Table:
    """Load the embedded model and let it add: it is small, but it has read a lot of Python."""
    from penstock.engine.llm import LLM

    started = time.perf_counter()
    llm = LLM()
    loaded = time.perf_counter()
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
    [result] = llm.generate(_PROMPT, params, use_tqdm=False)
    elapsed = time.perf_counter() - loaded
    first_line = result.outputs[0].text.split("\n")[0]
    if not first_line.strip():
        raise RuntimeError(f"it continued {_PROMPT!r} with {result.outputs[0].text!r}")
    table = _table("Embedded model")
    table.add_row("loads in", f"{loaded - started:.1f} s")
    table.add_row("speed", f"{len(result.outputs[0].token_ids) / elapsed:.0f} tokens/s, one stream")
    table.add_row(
        "continues", f"{_PROMPT.splitlines()[-1].strip()} [bold green]{first_line.strip()}[/]"
    )
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, show_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    return table
