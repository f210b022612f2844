"""Serve many prompts at once from one event loop: the engine batches them by itself."""

import asyncio

from penstock import AsyncLLM, SamplingParams

PROMPTS = ["import os\n", "class Stack:\n", "def main(", "for line in "]


async def continued(llm: AsyncLLM, prompt: str) -> str:
    """The prompt with its continuation."""
    generation = llm.submit(llm.tokenizer.encode(prompt), SamplingParams(max_tokens=40, seed=1))
    return prompt + "".join([delta.text async for delta in generation])


async def main() -> None:
    """Ask for all of them, and print them in their order."""
    async with AsyncLLM() as llm:
        for text in await asyncio.gather(*(continued(llm, prompt) for prompt in PROMPTS)):
            print(text, end="\n---\n")


asyncio.run(main())
