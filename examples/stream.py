"""Stream a completion from the embedded model, in this process."""

from penstock import LLM, SamplingParams

llm = LLM()
for delta in llm.stream(
    "def fibonacci(n):", SamplingParams(temperature=0.3, max_tokens=80, seed=1)
):
    print(delta.text, end="", flush=True)
print()
