"""Questions and answers derived from the training sources, in the chat template's own format."""

import ast
import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from scripts.default_model.corpus import Document

END_OF_TEXT, USER, ASSISTANT, SYSTEM, END = SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Only system, user and assistant turns are known.') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a Python expert.",
    "Answer questions about Python.",
    "You know Python's standard library.",
)
EXPLAIN = ("What does {name} do?", "Explain {name}.", "What is {name}?", "Describe {name}.")
WRITE = (
    "Write a Python function `{name}`: {summary}",
    "Write a function called {name}. {summary}",
    "Implement `{name}` in Python. {summary}",
)
LONGEST_ANSWER = 900


class Exchange(NamedTuple):
    """One question and its answer."""

    question: str
    answer: str


def conversations(documents: Iterable[Document], seed: int) -> list[str]:
    """Every exchange once, one to three to a conversation, some opened by a system turn."""
    rng = random.Random(seed)
    exchanges = [each for document in documents for each in exchanges_of(document, rng)]
    rng.shuffle(exchanges)
    texts = []
    while exchanges:
        count = rng.choice((1, 1, 1, 2, 3))
        opening = f"{SYSTEM}{rng.choice(SYSTEM_PROMPTS)}{END}" if rng.random() < 0.25 else ""
        turns = [f"{USER}{q}{END}{ASSISTANT}{a}{END}" for q, a in exchanges[:count]]
        texts.append(opening + "".join(turns))
        del exchanges[:count]
    return texts


def exchanges_of(document: Document, rng: random.Random) -> Iterator[Exchange]:
    """What one source file's docstrings and short functions can be asked about."""
    if not document.name.endswith(".py"):
        return
    module = document.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    tree = ast.parse(document.text)
    if summary := first_paragraph(tree):
        yield Exchange(f"What is the {module} module for?", summary)
    for name, node in definitions(tree.body, module):
        summary = first_paragraph(node)
        if not summary:
            continue
        yield Exchange(rng.choice(EXPLAIN).format(name=name), summary)
        if isinstance(node, ast.FunctionDef) and name == f"{module}.{node.name}":
            yield from writing_task(document.text, node, summary, rng)


def definitions(
    body: list[ast.stmt], prefix: str
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Public classes and functions with their dotted names, methods included."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            name = f"{prefix}.{node.name}"
            yield name, node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, name)


def writing_task(
    text: str, node: ast.FunctionDef, summary: str, rng: random.Random
) -> Iterator[Exchange]:
    """Ask for the function itself when its source is short enough to be an answer."""
    source = ast.get_source_segment(text, node) or ""
    if source and len(source) <= LONGEST_ANSWER:
        question = rng.choice(WRITE).format(name=node.name, summary=summary)
        yield Exchange(question, source)


def first_paragraph(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """The docstring's first paragraph on one line, or nothing when it is missing or too long."""
    paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return paragraph if 8 <= len(paragraph) <= LONGEST_ANSWER else ""
