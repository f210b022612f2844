"""The commands, as a person types them."""

import ast
import json
from pathlib import Path

import pytest

from penstock.models.location import embedded_model_dir
from tests.endtoend.commands import penstock, typed


@pytest.mark.parametrize(
    "start",
    [
        "def add(a, b):\n    return a +",
        "class Stack:\n    def __init__(self",
        "def read_lines(path):\n    with open(",
    ],
)
def test_generate_continues_python_with_python(start):
    """The first line that the embedded model adds makes a text that Python can parse."""
    done = typed("generate", "--temperature", "0", "--max-tokens", "16", "--stop", "\n", start)
    assert done.returncode == 0, done.stderr
    line = start + done.stdout.rstrip("\n")
    ast.parse(line + "\n        pass" if line.endswith(":") else line)


def test_generate_goes_on_to_the_next_line_in_a_process_of_its_own_too():
    done = penstock("generate", "--temperature", "0", "--max-tokens", "48", "def fibonacci(n):")
    assert done.stdout.startswith("\n    ")
    assert "return" in done.stdout or '"""' in done.stdout


def test_generate_reads_standard_input_and_takes_the_options_of_sampling():
    first, second, other = (
        typed("generate", "--seed", seed, "--max-tokens", "12", input="import os\n").stdout
        for seed in ("1", "1", "2")
    )
    assert first == second != other


def test_generate_answers_several_prompts_in_their_order():
    done = typed("generate", "--max-tokens", "4", "--echo", "import os", "class A:")
    assert done.stdout.index("import os") < done.stdout.index("class A:")


def test_a_quantized_model_is_a_model(tmp_path):
    model = str(embedded_model_dir())
    for weights in ("int8", "int4"):
        made = str(tmp_path / weights)
        done = typed("quantize", model, made, "--weights", weights, "--calibration-tokens", "256")
        assert done.returncode == 0, done.stderr
        assert f"penstock serve {made}" in "".join(done.stdout.split("\n"))
        done = typed("generate", "--model", made, "--temperature", "0", "def fibonacci(n):")
        assert done.stdout.startswith("\n    "), done.stderr


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--weights", "int3"], "int3"),
        (["--smoothing", "2"], "smoothing"),
        (["--calibration", "nowhere.txt"], "nowhere.txt"),
        (["--calibration-tokens", "0"], "calibration_tokens"),
    ],
)
def test_quantize_refuses_what_makes_no_sense_and_writes_nothing(tmp_path, flags, word):
    done = typed("quantize", str(embedded_model_dir()), str(tmp_path / "out"), *flags)
    assert done.returncode == 1
    assert word in done.stderr
    assert not (tmp_path / "out").exists()


def test_doctor_says_what_the_machine_is_and_that_the_model_answers():
    done = typed("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "instruction sets" in done.stdout and "tokens/s" in done.stdout


def test_chat_remembers_the_conversation_and_leaves_at_the_end_of_input():
    done = typed(
        "chat",
        "--temperature",
        "0",
        "--max-tokens",
        "8",
        input="What is a list?\n/undo\n/what\nAnd a set?\n",
    )
    assert done.returncode == 0, done.stderr
    assert "/reset forgets" in done.stdout


def test_help_teaches():
    done = penstock("serve", "--help")
    assert done.returncode == 0 and "--token-budget" in done.stdout and "curl" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "--temperature", "7", "x"), "temperature"),
        (("generate", "--top-p", "0", "x"), "top_p"),
        (("generate", "--max-tokens", "100000", "x"), "maximum context length is 2048"),
        (("generate", ""), "prompt is empty"),
        (("generate", "--weights", "int3", "x"), "Unknown weights 'int3'"),
        (("generate", "--device", "cuda:77", "x"), "no device 'cuda:77'"),
        (("generate", "--model", "/nowhere", "x"), "/nowhere"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(arguments, words):
    done = typed(*arguments)
    assert done.returncode != 0
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["/nowhere"], "/nowhere"),
        (["--max-num-seqs", "9", "--token-budget", "9"], "must be less than token_budget"),
    ],
)
def test_so_is_one_of_a_server_which_is_a_process_of_its_own(flags, words):
    done = penstock("serve", *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert words in " ".join(done.stderr.split())


def test_a_model_of_unknown_architecture_is_refused_by_name(tmp_path: Path):
    config = {"architectures": ["LamaForCausalLM"], "model_type": "lama"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    done = penstock("serve", str(tmp_path))
    assert done.returncode == 1
    assert "Error" in done.stderr and "Traceback" not in done.stderr
